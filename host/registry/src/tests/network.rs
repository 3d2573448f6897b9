//! What is known of addresses as objects: IPAddresses, the ranges, and the way in to the API.

use client::{ListOptions, PatchKind};
use serde_json::json;

use super::support::*;

#[tokio::test]
async fn every_address_of_a_service_is_an_object() {
    let registry = open().await;
    let shop = Shop(&registry);
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"clusterIP": "10.96.3.4", "ports": [{"port": 80}]}});
    shop.create("services/default", service.clone()).await.unwrap();
    let address = "networking.k8s.io/v1/ipaddresses//10.96.3.4";
    let found = shop.get(address).await.unwrap();
    assert_eq!(
        found["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "s"})
    );
    assert_eq!(found["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv4");
    let outside = json!({"spec": {"type": "ExternalName", "externalName": "a.b", "clusterIP": "", "clusterIPs": null}});
    shop.patch("services/default/s", PatchKind::Merge, outside)
        .await
        .unwrap();
    assert!(shop.get(address).await.is_err(), "the Service has let go of it");
    service["metadata"]["name"] = "t".into();
    shop.create("services/default", service).await.unwrap();
    assert_eq!(shop.get(address).await.unwrap()["spec"]["parentRef"]["name"], "t");
    shop.delete("services/default/t").await.unwrap();
    assert!(shop.get(address).await.is_err(), "it is gone with its Service");
    let all = shop
        .list("networking.k8s.io/v1/ipaddresses", ListOptions::default())
        .await
        .unwrap();
    assert_eq!(names(&all), ["10.96.0.1"], "that of the API stays");
}

#[tokio::test]
async fn the_api_has_a_way_in_and_the_ranges_are_told() {
    let mut options = options();
    options.network.api_address = Some("192.0.2.7".parse().unwrap());
    options.network.api_port = 16443;
    let registry = open_with(options).await;
    let shop = Shop(&registry);
    let endpoints = shop.get("endpoints/default/kubernetes").await.unwrap();
    assert_eq!(
        endpoints["subsets"],
        json!([{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"name": "https", "port": 16443, "protocol": "TCP"}]}])
    );
    let slice = shop
        .get("discovery.k8s.io/v1/endpointslices/default/kubernetes")
        .await
        .unwrap();
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.7"]));
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "kubernetes");
    let ranges = shop.get("networking.k8s.io/v1/servicecidrs//kubernetes").await.unwrap();
    assert_eq!(ranges["spec"]["cidrs"], json!(["10.96.0.0/16"]));
    assert_eq!(ranges["status"]["conditions"][0]["type"], "Ready");
}

/// The door of a built-in kind's status takes labels and annotations, that of a custom one does not.
#[tokio::test]
async fn a_status_brings_annotations_with_it() {
    let registry = open().await;
    let shop = Shop(&registry);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    shop.create("pods/default", pod).await.unwrap();
    let both = json!({"metadata": {"annotations": {"seen": "true"}}, "status": {"phase": "Running"},
        "spec": {"nodeName": "elsewhere"}});
    let now = shop
        .patch("pods/default/a/status", PatchKind::Merge, both)
        .await
        .unwrap()
        .value();
    assert_eq!(
        (&now["metadata"]["annotations"]["seen"], &now["status"]["phase"]),
        (&json!("true"), &json!("Running"))
    );
    assert_eq!(now["spec"].get("nodeName"), None);
}

/// `autoscaling/v1` and `v2` are two views of one object.
#[tokio::test]
async fn an_autoscaler_has_two_faces() {
    let registry = open().await;
    let shop = Shop(&registry);
    let old = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    shop.create("autoscaling/v1/horizontalpodautoscalers/default", old)
        .await
        .unwrap();
    let new = shop
        .get("autoscaling/v2/horizontalpodautoscalers/default/a")
        .await
        .unwrap();
    assert_eq!(new["apiVersion"], "autoscaling/v2");
    assert_eq!(
        new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
        50
    );
    let pods = json!({"spec": {"metrics": [{"type": "Pods", "pods": {"metric": {"name": "q"},
        "target": {"type": "AverageValue", "averageValue": "3"}}}]}});
    shop.patch(
        "autoscaling/v2/horizontalpodautoscalers/default/a",
        PatchKind::Merge,
        pods,
    )
    .await
    .unwrap();
    let shown = shop
        .get("autoscaling/v1/horizontalpodautoscalers/default/a")
        .await
        .unwrap();
    assert_eq!(shown["spec"].get("targetCPUUtilizationPercentage"), None);
    let kept = shown["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"]
        .as_str()
        .unwrap();
    assert!(kept.contains("\"metricName\":\"q\""), "{kept}");
}

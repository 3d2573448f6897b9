//! What only etcd has: connections that break, certificates, and others who use it beside us.

use std::time::Duration;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use store::etcd::{Certificate, EtcdOptions, EtcdStore, EtcdTls, Identity};
use store::{Outcome, Range, Store, Txn};

use crate::etcd_server::EtcdServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_bridges_a_restart_of_etcd() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut server) = EtcdServer::start(dir.path()) else {
        return;
    };
    let store = EtcdStore::connect(EtcdOptions::new(vec![server.endpoint.clone()]))
        .await
        .unwrap();
    let start = store.revision().await.unwrap();
    let mut watch = store.watch("/registry/".into(), start).await.unwrap();
    let mut written = Vec::new();
    for round in 0..3 {
        if round > 0 {
            server.restart();
        }
        for n in 0..5 {
            // Until it is back, writes fail; one that failed may have happened.
            let key = format!("/registry/{round}-{n}");
            let limit = tokio::time::Instant::now() + Duration::from_secs(60);
            loop {
                match store.txn(Txn::create(key.clone(), "")).await {
                    Ok(Outcome::Done { .. } | Outcome::Refused { .. }) => break,
                    Err(error) => assert!(tokio::time::Instant::now() < limit, "etcd does not come back: {error}"),
                }
            }
            written.push(key);
        }
    }
    let mut seen: Vec<Bytes> = Vec::new();
    while seen.len() < written.len() {
        let batch = tokio::time::timeout(Duration::from_secs(60), watch.next())
            .await
            .expect("the watch goes on");
        seen.extend(batch.unwrap().events.iter().map(|event| event.key.clone()));
    }
    assert_eq!(seen, written, "none is missing and none came twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_known_client_gets_in_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    };
    let (server_cert, server_key) = pki.sign("etcd", ExtendedKeyUsagePurpose::ServerAuth);
    let arguments = [
        "--client-cert-auth".to_owned(),
        format!("--trusted-ca-file={}", file("ca.crt", &pki.ca)),
        format!("--cert-file={}", file("server.crt", &server_cert)),
        format!("--key-file={}", file("server.key", &server_key)),
    ];
    let data = dir.path().join("data");
    let Some(server) = EtcdServer::start_with(&data, "https", &arguments) else {
        return;
    };
    let options = |identity| EtcdOptions {
        tls: Some(EtcdTls {
            ca: Certificate::from_pem(&pki.ca),
            identity,
            server_name: Some("etcd".into()),
        }),
        timeout: Duration::from_secs(5),
        ..EtcdOptions::new(vec![server.endpoint.clone()])
    };
    let (cert, key) = pki.sign("pilotis", ExtendedKeyUsagePurpose::ClientAuth);
    let store = EtcdStore::connect(options(Some(Identity::from_pem(cert, key))))
        .await
        .unwrap();
    assert!(matches!(
        store.txn(Txn::put("/registry/k", "v")).await.unwrap(),
        Outcome::Done { .. }
    ));
    assert!(
        EtcdStore::connect(options(None)).await.is_err(),
        "a client without a certificate"
    );
    let stranger = Pki::new();
    let (cert, key) = stranger.sign("pilotis", ExtendedKeyUsagePurpose::ClientAuth);
    let identity = Some(Identity::from_pem(cert, key));
    assert!(
        EtcdStore::connect(options(identity)).await.is_err(),
        "a client of another authority"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_write_elsewhere_delays_no_progress() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = EtcdServer::start(dir.path()) else {
        return;
    };
    let connect = |root: &str| {
        let options = EtcdOptions {
            root: root.into(),
            ..EtcdOptions::new(vec![server.endpoint.clone()])
        };
        EtcdStore::connect(options)
    };
    let (ours, theirs) = (
        connect("/registry/").await.unwrap(),
        connect("/elsewhere/").await.unwrap(),
    );
    let start = ours.revision().await.unwrap();
    let mut watch = ours.watch("/registry/".into(), start).await.unwrap();
    for _ in 0..3 {
        // Our watch never hears of this, but it raises the revision.
        let outcome = theirs.txn(Txn::put("/elsewhere/k", "")).await.unwrap();
        let Outcome::Done { revision } = outcome else {
            panic!("{outcome:?}")
        };
        ours.request_progress().await.unwrap();
        let batch = tokio::time::timeout(Duration::from_secs(10), watch.next())
            .await
            .expect("progress")
            .unwrap();
        assert!(batch.events.is_empty() && batch.through >= revision);
    }
    let page = ours.range(Range::prefix("/registry/")).await.unwrap();
    assert!(page.entries.is_empty(), "nothing of ours shows under the root");
}

/// An authority and what it signs.
struct Pki {
    ca: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        Self {
            ca,
            issuer: Issuer::new(params, key),
        }
    }

    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        // etcd's gateway to itself presents the server's certificate as a client's.
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

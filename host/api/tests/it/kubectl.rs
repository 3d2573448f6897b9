//! A session of every kubectl on this machine, each in a namespace of its own on one cluster.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use rcgen::{CertificateParams, DnType, KeyPair};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;

use crate::support::{Ran, TestCluster, kubectl, kubectls};

struct Session<'a> {
    cluster: &'a TestCluster,
    version: &'a str,
    program: &'a Path,
    namespace: String,
    user: &'a str,
}

impl Session<'_> {
    async fn run(&self, input: &str, line: &str) -> Ran {
        let mut arguments = vec!["-n", self.namespace.as_str()];
        arguments.extend(line.split(' '));
        kubectl(self.program, &self.cluster.config_of(self.user), input, &arguments).await
    }

    /// The command succeeds and prints each of these.
    async fn prints(&self, input: &str, line: &str, expected: &[&str]) -> String {
        let ran = self.run(input, line).await;
        assert!(ran.ok, "kubectl {} {line}: {}{}", self.version, ran.out, ran.err);
        for text in expected {
            assert!(
                ran.out.contains(text),
                "kubectl {} {line}: no {text:?} in\n{}{}",
                self.version,
                ran.out,
                ran.err
            );
        }
        ran.out
    }

    /// The command succeeds before long: rights take hold when the authorizer has seen them.
    async fn eventually(&self, line: &str) {
        for _ in 0..50 {
            if self.run("", line).await.ok {
                return;
            }
        }
        panic!("kubectl {} {line} never succeeded", self.version);
    }

    /// The command fails and says each of these.
    async fn fails(&self, input: &str, line: &str, expected: &[&str]) {
        let ran = self.run(input, line).await;
        assert!(
            !ran.ok,
            "kubectl {} {line} ought to fail: {}{}",
            self.version, ran.out, ran.err
        );
        for text in expected {
            let said = format!("{}{}", ran.out, ran.err);
            assert!(
                said.contains(text),
                "kubectl {} {line}: no {text:?} in\n{said}",
                self.version
            );
        }
    }
}

const MAP: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata:
  name: applied
data:
  color: red
"#;

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web}
spec:
  containers:
  - name: web
    image: example.com/web:1
"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_kubectl_finds_a_cluster_it_knows() {
    let found = kubectls();
    if found.is_empty() {
        eprintln!("skipped: no kubectl of a known version on this machine");
        return;
    }
    let cluster = TestCluster::start().await;
    cluster.kubeconfig("jane", "");
    for (version, program) in &found {
        eprintln!("kubectl {version}");
        let namespace = format!("v{}", version.replace('.', "-"));
        let admin = Session {
            cluster: &cluster,
            version,
            program,
            namespace,
            user: "admin",
        };
        objects(&admin).await;
        patches(&admin).await;
        apply(&admin).await;
        pods(&admin).await;
        questions(&admin).await;
        rights(&admin).await;
        certificates(&admin).await;
        watches(&admin).await;
        admin.prints("", "delete configmap --all", &["deleted"]).await;
    }
}

async fn objects(k: &Session<'_>) {
    k.prints("", &format!("create namespace {}", k.namespace), &["created"])
        .await;
    k.prints("", "create configmap a --from-literal=x=1", &["configmap/a created"])
        .await;
    k.fails(
        "",
        "create configmap a --from-literal=x=1",
        &["configmaps \"a\" already exists"],
    )
    .await;
    k.prints("", "get configmaps", &["NAME", "DATA", "AGE"]).await;
    k.prints("", "get configmap a -o jsonpath={.data.x}", &["1"]).await;
    k.prints("", "get configmap a -o yaml", &["kind: ConfigMap", "x: \"1\""])
        .await;
    k.prints("", "get cm -A -o name", &["configmap/a"]).await;
    k.prints("", "label configmap a tier=web", &["configmap/a labeled"])
        .await;
    k.prints("", "annotate configmap a note=hello", &["configmap/a annotate"])
        .await;
    k.prints("", "get configmaps -l tier=web --show-labels", &["tier=web"])
        .await;
    k.prints("", "get configmaps -l tier!=web,tier --ignore-not-found", &[])
        .await;
    k.prints(
        "",
        "get configmaps --field-selector metadata.name=a -o name",
        &["configmap/a"],
    )
    .await;
    k.prints("", "describe configmap a", &["Name:", "tier=web"]).await;
    k.fails(
        "",
        "get configmap missing",
        &["Error from server (NotFound): configmaps \"missing\" not found"],
    )
    .await;
    k.fails("", "get pets", &["the server doesn't have a resource type \"pets\""])
        .await;
    k.prints("", "create configmap gone --from-literal=x=1", &[]).await;
    k.prints("", "delete configmap gone", &["configmap \"gone\" deleted"])
        .await;
    k.prints("", "wait --for=delete configmap/gone --timeout=20s", &[])
        .await;
    k.prints(
        "",
        "wait --for=jsonpath={.data.x}=1 configmap/a --timeout=20s",
        &["condition met"],
    )
    .await;
}

async fn patches(k: &Session<'_>) {
    k.prints(
        "",
        r#"patch configmap a --type=merge -p {"data":{"x":"2","y":"1"}}"#,
        &["configmap/a patched"],
    )
    .await;
    k.prints(
        "",
        r#"patch configmap a --type=json -p [{"op":"remove","path":"/data/y"}]"#,
        &["patched"],
    )
    .await;
    k.prints("", r#"patch configmap a -p {"data":{"z":"3"}}"#, &["patched"])
        .await;
    k.prints("", "get configmap a -o jsonpath={.data}", &[r#"{"x":"2","z":"3"}"#])
        .await;
    k.prints(
        "",
        "create configmap dry --from-literal=x=1 --dry-run=server",
        &["created (server dry run)"],
    )
    .await;
    k.fails("", "get configmap dry", &["NotFound"]).await;
    let read = k.prints("", "get configmap a -o json", &[]).await;
    k.prints(
        &read.replace("\"x\": \"2\"", "\"x\": \"8\""),
        "replace -f -",
        &["configmap/a replaced"],
    )
    .await;
    k.fails(
        &read.replace("\"x\": \"2\"", "\"x\": \"9\""),
        "replace -f -",
        &["(Conflict)", "the object has been modified"],
    )
    .await;
}

async fn apply(k: &Session<'_>) {
    k.prints(MAP, "apply -f -", &["configmap/applied created"]).await;
    k.prints(MAP, "apply -f -", &["configmap/applied unchanged"]).await;
    let blue = MAP.replace("red", "blue");
    k.prints(&blue, "apply -f -", &["configmap/applied configured"]).await;
    let wrong = MAP.replace("\ndata:", "\ndota:");
    k.fails(&wrong, "apply -f -", &["unknown field \"dota\""]).await;
    k.prints(&wrong, "apply --validate=warn -f -", &["applied"]).await;
    k.prints(&blue, "apply -f -", &["configmap/applied configured"]).await;
    k.fails(
        MAP,
        "apply --server-side --field-manager=other -f -",
        &["conflict", ".data.color"],
    )
    .await;
    k.prints(
        MAP,
        "apply --server-side --field-manager=other --force-conflicts -f -",
        &["serverside-applied"],
    )
    .await;
    k.prints(
        MAP,
        "apply --server-side --field-manager=other -f -",
        &["serverside-applied"],
    )
    .await;
    k.prints(
        "",
        "get configmap applied --show-managed-fields -o yaml",
        &["manager: other", "operation: Apply"],
    )
    .await;
    k.prints("", "get configmap applied -o jsonpath={.data.color}", &["red"])
        .await;
}

async fn pods(k: &Session<'_>) {
    k.prints(POD, "create -f -", &["pod/web created"]).await;
    k.prints("", "get pods", &["NAME", "READY", "STATUS", "RESTARTS", "web"])
        .await;
    k.prints("", "get pods -o wide", &["NODE", "NOMINATED NODE"]).await;
    k.prints(&POD.replace("web:1", "web:2"), "apply -f -", &["pod/web configured"])
        .await;
    k.prints(
        "",
        "get pod web -o jsonpath={.spec.containers[0].image}",
        &["example.com/web:2"],
    )
    .await;
    k.prints("", "logs web", &[]).await;
    k.fails("", "logs web -c nobody", &["container nobody is not valid for pod web"])
        .await;
    k.fails("", "exec web -- ls", &["pod web does not have a host assigned"])
        .await;
    k.prints("", "delete pod web --now", &["pod \"web\""]).await;
    k.fails("", "get pod web", &["NotFound"]).await;
}

async fn questions(k: &Session<'_>) {
    k.prints("", "api-resources", &["configmaps", "selfsubjectaccessreviews"])
        .await;
    k.prints("", "api-versions", &["authorization.k8s.io/v1", "v1"]).await;
    k.prints("", "version", &["Server Version", "v1.36.0+pilotis"]).await;
    k.prints("", "explain configmap", &["KIND:", "ConfigMap", "immutable"])
        .await;
    k.prints("", "explain pod.spec.containers", &["livenessProbe", "imagePullPolicy"])
        .await;
    k.prints("", "get --raw /readyz?verbose", &["readyz check passed"])
        .await;
    k.prints("", "get --raw /api/v1/namespaces/default", &["\"name\":\"default\""])
        .await;
}

async fn rights(k: &Session<'_>) {
    let jane = Session {
        user: "jane",
        namespace: k.namespace.clone(),
        ..*k
    };
    k.prints("", "auth can-i create pods", &["yes"]).await;
    k.prints("", "auth can-i --list", &["*.*"]).await;
    jane.fails("", "auth can-i create pods", &["no"]).await;
    let forbidden = format!(
        "Error from server (Forbidden): pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"{}\"",
        k.namespace
    );
    jane.fails("", "get pods", &[&forbidden]).await;
    k.fails("", "get pods --as=jane", &[&forbidden]).await;
    if k.version != "1.27" {
        // 1.27 asks for authentication.k8s.io/v1beta1, which Kubernetes 1.36 does not serve either.
        jane.prints("", "auth whoami", &["jane", "system:authenticated"]).await;
    }
    k.prints(
        "",
        "create rolebinding look --clusterrole=view --user=jane",
        &["created"],
    )
    .await;
    jane.eventually("get pods").await;
    jane.fails(
        "",
        "create configmap mine --from-literal=x=1",
        &["configmaps is forbidden"],
    )
    .await;
    let grow = "create role grow --verb=delete --resource=secrets";
    k.prints(
        "",
        "create rolebinding manage --clusterrole=admin --user=jane",
        &["created"],
    )
    .await;
    jane.eventually("auth can-i create roles").await;
    jane.prints("", grow, &["created"]).await;
    let refusal = &["attempting to grant RBAC permissions not currently held", "nodes"];
    jane.fails("", "create role nodes --verb=get --resource=nodes", refusal)
        .await;
    jane.fails(
        "",
        "create rolebinding root --clusterrole=cluster-admin --user=jane",
        &["not currently held"],
    )
    .await;
    k.prints("", "create serviceaccount robot", &["created"]).await;
    let token = k.prints("", "create token robot", &["."]).await;
    let as_robot = format!("auth can-i list pods --token={}", token.trim());
    // A client certificate comes before a token, so the robot asks through a config without one.
    let bare = k.cluster.without_user();
    let ran = kubectl(
        k.program,
        &bare,
        "",
        &[
            "-n",
            &k.namespace,
            "auth",
            "can-i",
            "list",
            "pods",
            "--token",
            token.trim(),
        ],
    )
    .await;
    assert!(!ran.ok && ran.out.contains("no"), "{as_robot}: {}{}", ran.out, ran.err);
    k.prints(
        "",
        &format!(
            "create rolebinding robot --clusterrole=view --serviceaccount={}:robot",
            k.namespace
        ),
        &["created"],
    )
    .await;
}

async fn certificates(k: &Session<'_>) {
    let request = |name: &str, signer: &str, group: &str| {
        let mut asked = CertificateParams::default();
        asked.distinguished_name.push(DnType::CommonName, "jane");
        asked.distinguished_name.push(DnType::OrganizationName, group);
        let signed = asked.serialize_request(&KeyPair::generate().unwrap()).unwrap();
        let pem = base64::engine::general_purpose::STANDARD.encode(signed.pem().unwrap());
        format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\n\
             spec: {{request: {pem}, signerName: {signer}, usages: [client auth]}}"
        )
    };
    let name = k.namespace.as_str();
    let everything = request(name, "kubernetes.io/kube-apiserver-client", "system:masters");
    let refusal = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    k.fails(&everything, "create -f -", &["forbidden", refusal]).await;
    let signer = format!("{name}.example.com/shop");
    // Another's signer may do with its own group of that name what it likes.
    k.prints(&request(name, &signer, "system:masters"), "create -f -", &["created"])
        .await;

    let jane = Session {
        user: "jane",
        namespace: k.namespace.clone(),
        ..*k
    };
    let grants = |role: &str, rule: &str| {
        format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: {role}-{name}}}\n\
             rules: [{{apiGroups: [certificates.k8s.io], {rule}}}]"
        )
    };
    let decide =
        "resources: [certificatesigningrequests, certificatesigningrequests/approval], verbs: [get, list, update]";
    let approve = format!("resources: [signers], verbs: [approve], resourceNames: ['{name}.example.com/*']");
    for (role, rule) in [("decide", decide), ("approve", &approve)] {
        k.prints(&grants(role, rule), "create -f -", &["created"]).await;
    }
    let bind = |role: &str| format!("create clusterrolebinding {role}-{name} --clusterrole={role}-{name} --user=jane");
    k.prints("", &bind("decide"), &["created"]).await;
    jane.eventually(&format!("get certificatesigningrequests {name}")).await;
    let line = format!("certificate approve {name}");
    let refusal = format!("user not permitted to approve requests with signerName \"{signer}\"");
    jane.fails("", &line, &["forbidden", &refusal]).await;
    k.prints("", &format!("get certificatesigningrequests {name}"), &["Pending"])
        .await;
    k.prints("", &bind("approve"), &["created"]).await;
    jane.eventually(&line).await;
    k.prints("", &format!("get certificatesigningrequests {name}"), &["Approved"])
        .await;
}

async fn watches(k: &Session<'_>) {
    let config = k.cluster.config_of(k.user);
    let mut child = tokio::process::Command::new(k.program)
        .arg("--kubeconfig")
        .arg(&config)
        .args(["--cache-dir", config.parent().unwrap().join("cache").to_str().unwrap()])
        .args(["-n", &k.namespace, "get", "configmaps", "--watch", "--no-headers"])
        .env_clear()
        .env("HOME", config.parent().unwrap())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    seen(&mut lines, "a ").await;
    k.prints("", "create configmap later --from-literal=x=1", &[]).await;
    seen(&mut lines, "later ").await;
    child.kill().await.unwrap();
}

/// Reads on until a line begins so.
async fn seen(lines: &mut Lines<BufReader<ChildStdout>>, start: &str) {
    loop {
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await;
        let line = line
            .unwrap_or_else(|_| panic!("{start}was not seen"))
            .unwrap()
            .expect("kubectl goes on");
        if line.starts_with(start) {
            return;
        }
    }
}

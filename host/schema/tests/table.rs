//! The committed table against its own head and against the generator's modules.

use model::Gvk;
use schema::{Relation, Table};

const TABLE: &str = include_str!("../src/table.txt");

#[test]
fn the_table_holds_what_its_head_says() {
    let head = TABLE
        .lines()
        .find(|line| line.starts_with("# kinds "))
        .expect("the head has counts");
    let count = |name: &str| -> usize {
        let mut words = head.split(' ').skip_while(|word| *word != name);
        words
            .nth(1)
            .and_then(|n| n.parse().ok())
            .unwrap_or_else(|| panic!("{name} in {head}"))
    };
    let body = || TABLE.lines().filter(|line| !line.starts_with('#'));
    let with = |start: &'static str| body().filter(|line| line.starts_with(start)).count();
    assert_eq!(with("@kind "), count("kinds"), "kinds");
    assert_eq!(with("@type "), count("types"), "types");
    let fields = body().count() - count("kinds") - count("types");
    assert_eq!(fields, count("fields"), "fields");
    assert_eq!(
        body().filter(|line| line.contains(" keys=")).count(),
        count("maplists"),
        "map lists"
    );
    assert_eq!(
        body().filter(|line| line.ends_with(" set")).count(),
        count("setlists"),
        "set lists"
    );
    assert_eq!(
        body().filter(|line| line.contains(" enum=")).count(),
        count("enums"),
        "fields with a list of texts"
    );
    assert_eq!(Table::builtin().kinds().count(), count("kinds"));
}

/// The generator's go.mod and the table must speak of the same Kubernetes: whoever raises one remakes the other.
#[test]
fn the_table_is_not_stale() {
    let modules = include_str!("../generate/go.mod");
    let sources: Vec<&str> = TABLE.lines().filter_map(|line| line.strip_prefix("# from ")).collect();
    assert_eq!(sources.len(), 4, "client-go, apiextensions, the aggregator and metrics");
    for source in sources {
        assert!(
            modules.contains(source),
            "table.txt is of {source}; run `go run .` in host/schema/generate"
        );
    }
}

#[test]
fn facts_that_much_depends_on() {
    let pod = Table::builtin().schema(&Gvk::new("", "v1", "Pod")).unwrap();
    let spec = pod.root().member("spec").unwrap().of();
    let ports = spec
        .member("containers")
        .unwrap()
        .of()
        .item()
        .unwrap()
        .member("ports")
        .unwrap();
    assert_eq!(ports.of().keys().collect::<Vec<_>>(), ["containerPort", "protocol"]);
    assert_eq!(ports.of().relation(), Some(Relation::Map));
    assert_eq!(ports.number(), 6);
    let container = spec.member("containers").unwrap().of().item().unwrap();
    assert_eq!(container.name(), Some("core/v1.Container"));
    let http = container
        .member("livenessProbe")
        .unwrap()
        .of()
        .member("httpGet")
        .unwrap();
    assert_eq!((http.within().collect::<Vec<_>>(), http.number()), (vec![1], 2));
    assert!(spec.member("nodeSelector").unwrap().of().is_atomic());
    let choices = |of: schema::Type<'_>| of.choices().collect::<Vec<_>>();
    let policy = container.member("imagePullPolicy").unwrap().of();
    assert_eq!(choices(policy), ["Always", "IfNotPresent", "Never"]);
    assert!(choices(container.member("image").unwrap().of()).is_empty());
    let finalizers = pod
        .root()
        .member("metadata")
        .unwrap()
        .of()
        .member("finalizers")
        .unwrap();
    assert_eq!(finalizers.of().relation(), Some(Relation::Set));
    assert_eq!(pod.root().member("apiVersion").unwrap().number(), 0);
    // A struct that is atomic but in one place keeps its members there.
    let volume = Table::builtin()
        .schema(&Gvk::new("", "v1", "PersistentVolume"))
        .unwrap();
    let modes = volume
        .root()
        .member("spec")
        .unwrap()
        .of()
        .member("accessModes")
        .unwrap();
    assert_eq!(
        choices(modes.of().item().unwrap()),
        ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]
    );
    let claim = volume
        .root()
        .member("spec")
        .unwrap()
        .of()
        .member("claimRef")
        .unwrap()
        .of();
    assert!(!claim.is_atomic() && claim.member("name").is_some());
}

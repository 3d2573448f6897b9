//! Protobuf against Kubernetes' own serializer, against JSON, and against whoever means harm.
//!
//! `cases/protobuf.txt` holds every kind of the table, empty and filled; `go run ./protobuf` in `generate` makes it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::{Failure, Gvk};
use proptest::prelude::*;
use schema::protobuf::{self, Envelope, MAGIC, TAIL};
use schema::{Scalar, Schema, Table, Type};
use serde_json::{Value, json};

struct Case {
    gvk: Gvk,
    json: &'static str,
    /// `None`: the kind has no protobuf.
    wire: Option<Vec<u8>>,
}

fn cases() -> Vec<Case> {
    let lines = include_str!("cases/protobuf.txt").lines();
    let case = |line: &'static str| {
        let mut parts = line.split('\t');
        let mut part = || parts.next().expect("four parts");
        let gvk = Gvk::from_api_version(part(), part());
        let json = part();
        let wire = match part() {
            "-" => None,
            text => Some(STANDARD.decode(text).unwrap()),
        };
        Case { gvk, json, wire }
    };
    lines.filter(|line| !line.starts_with('#')).map(case).collect()
}

fn schema_of(gvk: &Gvk) -> Schema {
    Table::builtin().schema(gvk).unwrap()
}

fn sealed(gvk: &Gvk, message: &[u8]) -> Vec<u8> {
    [&protobuf::head(gvk, message.len()), message, TAIL].concat()
}

#[test]
fn every_kind_is_read_and_written_as_kubernetes_does() {
    let cases = cases();
    let mut wrong = Vec::new();
    let mut kinds = 0;
    for case in &cases {
        let schema = schema_of(&case.gvk);
        let Some(wire) = &case.wire else {
            assert!(!schema.has_protobuf(), "{} has no protobuf", case.gvk);
            continue;
        };
        kinds += 1;
        let json = schema.decode(case.json.as_bytes()).unwrap();
        assert!(json.problems.is_empty(), "{}: {:?}", case.gvk, json.problems);
        match protobuf::decode(wire) {
            Ok((gvk, value)) if gvk == case.gvk && value == json.value => {}
            read => wrong.push(format!("{} is read as\n {read:?}\nnot\n {:?}", case.gvk, json.value)),
        }
        match schema.encode_protobuf(&json.value) {
            Ok(message) if sealed(&case.gvk, &message) == *wire => {}
            Ok(message) => {
                let at = sealed(&case.gvk, &message)
                    .iter()
                    .zip(wire)
                    .take_while(|(a, b)| a == b)
                    .count();
                wrong.push(format!("{} is written differently from byte {at} on", case.gvk));
            }
            Err(failure) => wrong.push(failure.to_string()),
        }
    }
    assert!(kinds > 550, "an empty and a filled object of each kind, not {kinds}");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_cases_hold_every_kind_of_the_table() {
    let cases = cases();
    for gvk in Table::builtin().kinds() {
        assert!(
            cases.iter().any(|case| case.gvk == *gvk),
            "{gvk} is missing: run `go run ./protobuf` in host/schema/generate"
        );
    }
}

/// Values of everything a type may hold, chosen by a seed. Lists and maps are never empty, which protobuf cannot tell
/// from absent.
struct Maker(u64);

impl Maker {
    fn turn(&mut self, of: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut n = self.0;
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (n ^ (n >> 31)) as usize % of
    }

    fn value(&mut self, of: Type<'_>, depth: usize) -> Value {
        if let Some(kind) = of.scalar() {
            return self.scalar(kind);
        }
        if let Some(item) = of.item() {
            return (0..=self.turn(2)).map(|_| self.value(item, depth)).collect();
        }
        if let Some(values) = of.values() {
            return (0..=self.turn(2))
                .map(|_| (self.word().to_owned(), self.value(values, depth)))
                .collect::<serde_json::Map<_, _>>()
                .into();
        }
        if of.is_struct() {
            let mut object = serde_json::Map::new();
            for member in of.members() {
                // What has no number (a nested apiVersion) is lost in protobuf, in Kubernetes as well.
                if member.number() > 0 && depth > 0 && self.turn(3) > 0 {
                    object.insert(member.name().to_owned(), self.value(member.of(), depth - 1));
                }
            }
            return object.into();
        }
        // Fits `JSONSchemaPropsOr…` too.
        json!({"type": self.word()})
    }

    fn word(&mut self) -> &'static str {
        ["a", "b.c/d", "é\"\\", "", "x-1"][self.turn(5)]
    }

    fn scalar(&mut self, kind: Scalar) -> Value {
        let turn = self.turn(4);
        match kind {
            Scalar::Text => self.word().into(),
            Scalar::Flag => turn.is_multiple_of(2).into(),
            Scalar::Real => [json!(0), json!(-1.5), json!(3), json!(1e300)][turn].clone(),
            Scalar::Whole => [0, 1, -1, i64::MIN][turn].into(),
            Scalar::Int32 => [0, 1, -1, i32::MAX][turn].into(),
            Scalar::Bytes => ["", "AA==", "/+8=", "aGVsbG8gd29ybGQ="][turn].into(),
            Scalar::Quantity => ["0", "100m", "1Gi", "1500"][turn].into(),
            Scalar::IntOrString => [json!(0), json!(-80), json!(""), json!("http")][turn].clone(),
            Scalar::Time => ["2026-01-02T03:04:05Z", "1969-12-31T23:59:59Z"][turn % 2].into(),
            Scalar::MicroTime => ["2026-01-02T03:04:05.000006Z", "1969-12-31T23:59:58.250000Z"][turn % 2].into(),
            Scalar::Duration => ["0s", "1h0m0.5s", "-3s", "10ns"][turn].into(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn json_to_protobuf_and_back_changes_nothing(seed: u64) {
        for gvk in Table::builtin().kinds() {
            let schema = schema_of(gvk);
            if !schema.has_protobuf() {
                continue;
            }
            let mut value = Maker(seed).value(schema.root(), 6);
            value["apiVersion"] = gvk.api_version().into();
            value["kind"] = gvk.kind.as_str().into();
            let value = schema.decode(value.to_string().as_bytes()).unwrap().value;
            let message = schema.encode_protobuf(&value).unwrap();
            let (read, back) = protobuf::decode(&sealed(gvk, &message)).unwrap();
            prop_assert_eq!(&read, gvk);
            prop_assert_eq!(&back, &value, "{} with seed {}", gvk, seed);
            // A server that knows less of the kind still reads what it knows: unknown fields are stepped over.
            let newer = [&message[..], &[0xfa, 0xff, 0x03, 0x02, b'h', b'i', 0xf0, 0xff, 0x03, 0x07]].concat();
            prop_assert_eq!(&schema.decode_protobuf(&newer).unwrap(), &value);
        }
    }

    #[test]
    fn damaged_documents_are_answered(seed: u64, cut: prop::sample::Index, flip: prop::sample::Index, to: u8) {
        let gvk = Gvk::new("", "v1", "Pod");
        let schema = schema_of(&gvk);
        let value = schema.decode(Maker(seed).value(schema.root(), 6).to_string().as_bytes()).unwrap().value;
        let mut whole = sealed(&gvk, &schema.encode_protobuf(&value).unwrap());
        let at = flip.index(whole.len());
        whole[at] = to;
        let _ = protobuf::decode(&whole);
        let _ = protobuf::decode(&whole[..cut.index(whole.len())]);
    }

    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>) {
        let _ = schema_of(&Gvk::new("apps", "v1", "Deployment")).decode_protobuf(&bytes);
        let _ = protobuf::decode(&[MAGIC, &bytes].concat());
    }
}

/// A field that holds bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    protobuf::wire::put_bytes(&mut out, number.into(), content);
    out
}

fn refusal(gvk: &Gvk, message: &[u8]) -> String {
    match protobuf::decode(&sealed(gvk, message)) {
        Err(Failure::BadRequest(why)) => why,
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn hostile_messages_are_refused_with_the_place() {
    let pod = Gvk::new("", "v1", "Pod");
    let told = |message: &[u8], why: &str| {
        let refusal = refusal(&pod, message);
        assert!(refusal.ends_with(why), "{refusal}\nnot\n{why}");
    };
    let start = "Pod in version \"v1\" cannot be handled as a Pod: ";
    let container = |content: &[u8]| field(2, &field(2, content));
    told(&[0x0a, 0x7f], "it ends within a field");
    assert!(refusal(&pod, &[0x0a, 0x7f]).starts_with(start));
    // A length of 2⁶⁴ - 1, and one of 2⁶³.
    told(
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        "it ends within a field",
    );
    told(
        &container(&[0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]),
        "spec.containers: it ends within a field",
    );
    told(&[0xff; 12], "a number has more than ten bytes");
    told(&[0x00], "a field has the number 0");
    told(&[0x0f], "a field has a wire type that does not exist");
    told(&[0x08, 0x01], "metadata: a number stands where a message belongs");
    told(
        &container(&field(1, &[0xff])),
        "spec.containers.name: a text is not UTF-8",
    );
    told(
        &container(&field(8, &field(1, &field(2, &field(1, b"much"))))),
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    // Two bytes each on the wire, and a struct with its required members each in memory.
    let many = field(2, &[0x12, 0x00].repeat(200_000));
    told(&many, "spec.containers: it holds more values than any object may");
    let port = field(2, &field(2, &field(6, &[0x08].repeat(3))));
    assert!(refusal(&pod, &port).contains("spec.containers.ports"));
}

#[test]
fn nesting_ends_somewhere() {
    let crd = Gvk::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    // `not` within `not`, and so on.
    let nested = |levels: usize| {
        let mut schema = Vec::new();
        for _ in 0..levels {
            schema = [
                vec![0xda, 0x01],
                {
                    let mut length = Vec::new();
                    protobuf::wire::put_varint(&mut length, schema.len() as u64);
                    length
                },
                schema,
            ]
            .concat();
        }
        field(2, &field(7, &field(4, &field(1, &schema))))
    };
    assert!(protobuf::decode(&sealed(&crd, &nested(60))).is_ok());
    assert!(refusal(&crd, &nested(5000)).ends_with("it is nested too deeply"));
}

#[test]
fn envelopes_say_what_is_in_them() {
    let gvk = Gvk::new("apps", "v1", "Deployment");
    let whole = sealed(&gvk, b"xyz");
    assert_eq!(
        Envelope::open(&whole).unwrap(),
        Envelope {
            gvk: gvk.clone(),
            raw: b"xyz"
        }
    );
    for (bad, why) in [
        (b"{}".to_vec(), "it does not begin with the bytes k8s\\0"),
        (MAGIC.to_vec(), "its envelope does not say apiVersion and kind"),
        (
            [MAGIC, &field(1, &field(1, b"v1"))].concat(),
            "its envelope does not say apiVersion and kind",
        ),
        (
            [&whole[..whole.len() - TAIL.len()], &field(3, b"gzip")].concat(),
            "its content encoding is \"gzip\"; none is known",
        ),
        (
            [&whole[..whole.len() - TAIL.len()], &field(4, b"application/json")].concat(),
            "its content type is \"application/json\", not protobuf",
        ),
    ] {
        let Err(Failure::BadRequest(told)) = Envelope::open(&bad) else {
            panic!("{bad:?} is taken");
        };
        assert_eq!(told, format!("the protobuf body cannot be read: {why}"));
    }
    for unknown in [
        Gvk::new("x.example.com", "v1", "Pet"),
        Gvk::new("meta.k8s.io", "v1", "Table"),
    ] {
        assert!(matches!(
            protobuf::decode(&sealed(&unknown, b"")),
            Err(Failure::UnsupportedMediaType(_))
        ));
    }
}

#[test]
fn packed_numbers_and_repeated_messages_are_read_as_go_reads_them() {
    let pod = schema_of(&Gvk::new("", "v1", "Pod"));
    // supplementalGroups is field 4 of the security context, which is field 14 of the spec: 1, 2 packed, then 3 alone.
    let groups = [field(4, &[1, 2]), vec![0x20, 3]].concat();
    let read = pod.decode_protobuf(&field(2, &field(14, &groups))).unwrap();
    assert_eq!(read["spec"]["securityContext"]["supplementalGroups"], json!([1, 2, 3]));
    // Metadata in two pieces is one.
    let twice = [field(1, &field(1, b"web")), field(1, &field(3, b"default"))].concat();
    let read = pod.decode_protobuf(&twice).unwrap();
    assert_eq!(
        (&read["metadata"]["name"], &read["metadata"]["namespace"]),
        (&json!("web"), &json!("default"))
    );
}

#[test]
fn what_is_embedded_may_be_protobuf_itself() {
    let pod = sealed(&Gvk::new("", "v1", "Pod"), &field(1, &field(1, b"web")));
    let list = Gvk::new("", "v1", "List");
    let (_, read) = protobuf::decode(&sealed(&list, &field(2, &field(1, &pod)))).unwrap();
    assert_eq!(read["items"][0]["kind"], "Pod");
    assert_eq!(read["items"][0]["metadata"]["name"], "web");
}

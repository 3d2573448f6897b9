//! Gives pods the priority of their PriorityClass, and sees that one class at most is the default (Pod Priority and
//! Preemption, KEP-902).

use sdk::admission::{Answer, Operation, Request};
use sdk::{Fields, View};

const CLASS: &str = "scheduling.k8s.io/v1/PriorityClass";

/// A pod, or a class.
#[derive(Fields, Clone, Debug, Default)]
struct Object {
    #[at(".spec.priorityClassName")]
    class: String,
    #[at(".spec.priority")]
    priority: Option<i64>,
    #[at(".spec.preemptionPolicy")]
    preemption: String,
    #[at(".globalDefault")]
    is_default: bool,
}

#[derive(Fields, Clone, Debug)]
struct Class {
    #[at(".metadata.name")]
    name: String,
    #[at(".value")]
    value: i64,
    #[at(".preemptionPolicy")]
    preemption: String,
}

#[sdk::admission(
    on = ["create update pods", "create update priorityclasses.scheduling.k8s.io"],
    phases = ["mutating"],
    asks = ["get priorityclasses.scheduling.k8s.io"],
)]
fn review(request: Request<Object>, view: &View) -> sdk::Result<Answer> {
    let Some(object) = &request.object else {
        return Ok(Answer::allow());
    };
    let default = || -> sdk::Result<Option<Class>> {
        let marked = view.find(CLASS, &sdk::all().equals(".globalDefault", "true"), "", 0)?;
        // The API lets nobody make a second one; of several that came some other way the least counts.
        Ok(marked.into_iter().min_by_key(|class: &Class| class.value))
    };
    if request.resource == "priorityclasses" {
        return Ok(match default()? {
            Some(known) if object.is_default && known.name != request.name => Answer::deny(format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                known.name
            )),
            _ => Answer::allow(),
        });
    }
    if matches!(request.operation, Operation::Update) {
        return Ok(keep(object, request.old.as_ref()));
    }
    let class = if object.class.is_empty() {
        default()?
    } else {
        let class = view.get(CLASS, "", &object.class)?;
        if class.is_none() {
            let name = &object.class;
            return Ok(Answer::deny(format!("no PriorityClass with name {name} was found")));
        }
        class
    };
    Ok(give(object, class.as_ref()))
}

/// A new pod gets what its class says; what it says itself may not differ.
fn give(pod: &Object, class: Option<&Class>) -> Answer {
    let (value, preemption) = class.map_or((0, "PreemptLowerPriority"), |class| (class.value, &class.preemption));
    if let Some(own) = pod.priority.filter(|own| *own != value) {
        return Answer::deny(format!(
            "the integer value of priority ({own}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        ));
    }
    let own = pod.preemption.as_str();
    if !own.is_empty() && own != preemption {
        return Answer::deny(format!(
            "the string value of PreemptionPolicy ({own}) must not be provided in pod spec; priority admission \
             controller computed {preemption} from the given PriorityClass name"
        ));
    }
    let mut answer = Answer::allow().patch("add", "/spec/priority", value.into()).patch(
        "add",
        "/spec/preemptionPolicy",
        preemption.into(),
    );
    if let Some(class) = class.filter(|_| pod.class.is_empty()) {
        answer = answer.patch("add", "/spec/priorityClassName", class.name.as_str().into());
    }
    answer
}

/// Whoever replaces a pod with the document it was made of leaves out what was given to it then, and does not mean to
/// change it.
fn keep(pod: &Object, old: Option<&Object>) -> Answer {
    let mut answer = Answer::allow();
    let Some(old) = old else { return answer };
    if let (None, Some(priority)) = (pod.priority, old.priority) {
        answer = answer.patch("add", "/spec/priority", priority.into());
    }
    if pod.preemption.is_empty() && !old.preemption.is_empty() {
        answer = answer.patch("add", "/spec/preemptionPolicy", old.preemption.as_str().into());
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdk::{Value, json};

    fn class(preemption: &str) -> Class {
        Class {
            name: "high".into(),
            value: 1000,
            preemption: preemption.into(),
        }
    }

    fn given(pod: &Object, class: Option<&Class>) -> Value {
        let answer = give(pod, class);
        match answer.denied {
            Some(denial) => denial.message.into(),
            None => answer
                .patch
                .into_iter()
                .map(|step| json!([step["path"], step["value"]]))
                .collect(),
        }
    }

    #[test]
    fn a_pod_gets_what_its_class_says() {
        let plain = Object::default();
        let none = json!([
            ["/spec/priority", 0],
            ["/spec/preemptionPolicy", "PreemptLowerPriority"]
        ]);
        assert_eq!(given(&plain, None), none);
        let default = json!([
            ["/spec/priority", 1000],
            ["/spec/preemptionPolicy", "Never"],
            ["/spec/priorityClassName", "high"],
        ]);
        assert_eq!(given(&plain, Some(&class("Never"))), default);
        let named = Object {
            class: "high".into(),
            priority: Some(1000),
            ..Object::default()
        };
        let same = json!([
            ["/spec/priority", 1000],
            ["/spec/preemptionPolicy", "PreemptLowerPriority"]
        ]);
        assert_eq!(given(&named, Some(&class("PreemptLowerPriority"))), same);
    }

    #[test]
    fn what_a_pod_says_itself_may_not_differ() {
        let itself = Object {
            priority: Some(7),
            ..Object::default()
        };
        let said = given(&itself, None).to_string();
        assert!(said.contains("priority (7) must not be provided in pod spec"), "{said}");
        let never = Object {
            preemption: "Never".into(),
            ..Object::default()
        };
        let said = given(&never, Some(&class("PreemptLowerPriority"))).to_string();
        assert!(said.contains("PreemptionPolicy (Never) must not be provided"), "{said}");
    }

    #[test]
    fn an_update_keeps_what_was_given() {
        let old = Object {
            priority: Some(5),
            preemption: "Never".into(),
            ..Object::default()
        };
        assert_eq!(keep(&Object::default(), Some(&old)).patch.len(), 2);
        assert!(keep(&old, Some(&Object::default())).patch.is_empty());
    }
}

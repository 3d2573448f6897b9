//! Everything but pods: objects by kind, ports and load balancers of Services, storage that is claimed.

use sdk::pods::Amounts;
use sdk::quota::{Counted, of_service};
use sdk::{Fields, Quantity, Value, View, within};

const CLAIM: &str = "v1/PersistentVolumeClaim";
const SERVICE: &str = "v1/Service";

pub(crate) fn count(namespace: &str, names: &[String], view: &View) -> sdk::Result<Amounts> {
    let mut used = Amounts::new();
    let mut services = None;
    for name in names {
        let amount = match Counted::of(name) {
            Some(Counted::Objects(resource)) if resource != "pods" => objects(namespace, &resource, view)?,
            Some(Counted::NodePorts) => whole(of_services(namespace, &mut services, view)?.0),
            Some(Counted::LoadBalancers) => whole(of_services(namespace, &mut services, view)?.1),
            Some(Counted::Storage(class)) => claims(namespace, class.as_deref(), view)?.1,
            Some(Counted::ClaimsOf(class)) => claims(namespace, Some(&class), view)?.0,
            _ => continue,
        };
        used.insert(name.clone(), amount);
    }
    Ok(used)
}

fn whole(number: i64) -> Quantity {
    Quantity::from_milli(number.saturating_mul(1000))
}

/// None of a kind that nobody serves: when it is, the list of kinds changes and this runs again.
fn objects(namespace: &str, resource: &str, view: &View) -> sdk::Result<Quantity> {
    let kinds = view.kinds()?;
    let Some(kind) = kinds
        .iter()
        .find(|kind| kind.resource == resource && kind.namespaced && kind.listable)
    else {
        return Ok(Quantity::ZERO);
    };
    Ok(whole(view.tally(&kind.kind, &within(namespace), "", "")?.total()?))
}

/// How many claims, and how much they ask for.
fn claims(namespace: &str, class: Option<&str>, view: &View) -> sdk::Result<(Quantity, Quantity)> {
    let mut which = within(namespace);
    if let Some(class) = class {
        which = which.equals(".spec.storageClassName", class);
    }
    let tally = view.tally(CLAIM, &which, "", ".spec.resources.requests[\"storage\"]")?;
    let (mut claims, mut milli) = (0, 0);
    for row in tally.rows()? {
        claims += row.count();
        milli += row.sum(0);
    }
    Ok((whole(claims), Quantity::from_milli(milli)))
}

/// Ports on nodes and load balancers, counted once a run. Few Services have any.
fn of_services(namespace: &str, known: &mut Option<(i64, i64)>, view: &View) -> sdk::Result<(i64, i64)> {
    #[derive(Fields)]
    struct Service {
        #[at(".spec.ports")]
        ports: Value,
        #[at(".spec.allocateLoadBalancerNodePorts")]
        allocates: Option<bool>,
    }
    if let Some(known) = known {
        return Ok(*known);
    }
    let mut sum = (0, 0);
    for kind in ["NodePort", "LoadBalancer"] {
        let services: Vec<Service> = view.find(SERVICE, &within(namespace).equals(".spec.type", kind), "", 0)?;
        for service in services {
            let (ports, balancers) = of_service(kind, &service.ports, service.allocates.unwrap_or(true));
            sum = (sum.0 + ports, sum.1 + balancers);
        }
    }
    *known = Some(sum);
    Ok(sum)
}

//! Charges on quotas: taken by compare-and-swap before a write, given back if it fails.

use model::{Failure, Gvr, Quantity};
use serde_json::{Value, json};
use store::Txn;

use crate::Registry;
use crate::gates::Charge;
use crate::read;
use crate::table::{at, plain};

/// What a write has taken.
pub(crate) struct Taken(Vec<Charge>);

/// Takes every charge, or none.
///
/// # Errors
/// `Forbidden` in kube-apiserver's words when a quota would be passed.
pub(crate) async fn take(registry: &Registry, charges: &[Charge]) -> Result<Taken, Failure> {
    let mut taken = Taken(Vec::new());
    for charge in charges {
        if let Err(failure) = change(registry, charge, Way::Take).await {
            taken.give_back(registry).await;
            return Err(failure);
        }
        taken.0.push(charge.clone());
    }
    Ok(taken)
}

impl Taken {
    pub(crate) fn keep(mut self) {
        self.0.clear();
    }

    /// Best effort: what cannot be given back now is corrected by the quota controller's next count.
    pub(crate) async fn give_back(mut self, registry: &Registry) {
        for charge in self.0.drain(..) {
            if let Err(error) = change(registry, &charge, Way::GiveBack).await {
                tracing::warn!(quota = charge.quota, %error, "a charge could not be given back; the quota controller will");
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Take,
    GiveBack,
}

/// Adds a charge to the quota's `status.used`, or takes it off again.
async fn change(registry: &Registry, charge: &Charge, way: Way) -> Result<(), Failure> {
    let resource = registry.find(&Gvr::new("", "v1", "resourcequotas"))?;
    let cache = registry.cache(&resource).await?;
    loop {
        let Some(object) = read::newest(registry, &cache, &charge.namespace, &charge.quota).await? else {
            // The quota is gone, and with it the limit.
            return Ok(());
        };
        let mut value = object.value();
        let mut over = Vec::new();
        for (name, amount) in &charge.add {
            let of = |path: &str| -> Result<Option<Quantity>, Failure> {
                at(&value, path)
                    .and_then(|m| m.get(name))
                    .map(|q| Quantity::parse(&plain(q)))
                    .transpose()
            };
            let Some(hard) = of("status.hard")? else {
                continue;
            };
            let used = of("status.used")?;
            let asked = Quantity::parse(amount)?;
            let before = used.unwrap_or_default();
            let after = match way {
                Way::Take => before + asked,
                Way::GiveBack => before - asked,
            };
            if way == Way::Take && after > hard {
                over.push((name.clone(), amount.clone(), before.to_string(), hard.to_string()));
            }
            let sum = after.max(Quantity::default()).to_string();
            if value["status"].is_null() {
                value["status"] = json!({});
            }
            if value["status"]["used"].is_null() {
                value["status"]["used"] = json!({});
            }
            value["status"]["used"][name] = Value::String(sum);
        }
        if !over.is_empty() {
            let list = |pick: fn(&(String, String, String, String)) -> &String| {
                over.iter()
                    .map(|o| format!("{}={}", o.0, pick(o)))
                    .collect::<Vec<_>>()
                    .join(",")
            };
            return Err(Failure::Forbidden {
                resource: resource.kind.group_resource(),
                name: charge.quota.clone(),
                reason: format!(
                    "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                    charge.quota,
                    list(|o| &o.1),
                    list(|o| &o.2),
                    list(|o| &o.3)
                ),
            });
        }
        let stored = registry.encode(&resource.storage, &mut value)?;
        let key = cache.store_key(&charge.namespace, &charge.quota);
        match registry
            .inner
            .store
            .txn(Txn::update(key, stored.bytes, object.version))
            .await?
        {
            store::Outcome::Done { .. } => return Ok(()),
            // Another write charged the same quota: look again.
            store::Outcome::Refused { .. } => {}
        }
    }
}

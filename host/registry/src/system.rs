//! The machine's own clock and dice, and open gates for clusters that have none yet (tests, and tools that own the store).

use async_trait::async_trait;
use jiff::Timestamp;
use model::Failure;
use serde_json::Value;

use crate::gates::{Admit, Attributes, Audit, AuditEvent, Authorize, Clock, Decision, Dice, Interest, Notes, Request};

/// Wall time.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The operating system's randomness.
pub struct SystemDice;

/// No vowels and no digits that look like letters, so that no generated name reads as a word (`rand.SafeEncodeString`).
const SAFE: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

impl Dice for SystemDice {
    fn uid(&self) -> String {
        uuid::Uuid::new_v4().to_string()
    }

    fn suffix(&self) -> String {
        let bits = uuid::Uuid::new_v4().as_u128();
        (0..5)
            .map(|i| SAFE[((bits >> (i * 8)) as u8) as usize % SAFE.len()] as char)
            .collect()
    }

    fn below(&self, end: u64) -> u64 {
        (uuid::Uuid::new_v4().as_u128() % u128::from(end.max(1))) as u64
    }
}

/// Lets everybody do everything.
pub struct AllowAll;

#[async_trait]
impl Authorize for AllowAll {
    async fn authorize(&self, _what: &Attributes<'_>) -> Decision {
        Decision::Allow
    }
}

/// Admits every write as it is.
pub struct AdmitAll;

#[async_trait]
impl Admit for AdmitAll {
    fn wants(&self, _request: &Interest<'_>) -> bool {
        false
    }

    async fn mutate(&self, _: &Request<'_>, _: Option<&mut Value>, _: &mut Notes) -> Result<(), Failure> {
        Ok(())
    }

    async fn validate(&self, _: &Request<'_>, _: Option<&Value>, _: &mut Notes) -> Result<(), Failure> {
        Ok(())
    }
}

/// Keeps no record.
pub struct NoAudit;

impl Audit for NoAudit {
    fn record(&self, _event: &AuditEvent<'_>) {}
}

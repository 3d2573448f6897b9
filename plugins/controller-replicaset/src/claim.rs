//! Whose pod is it? What is read of one before it is adopted or released.

use sdk::Fields;
use sdk::owner::Claimable;

#[derive(Fields)]
pub(crate) struct Pod {
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.uid")]
    uid: String,
    #[at(".status.phase")]
    phase: String,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
}

impl Claimable for Pod {
    fn name(&self) -> &str {
        &self.name
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn stays(&self) -> bool {
        self.deleting || self.phase == "Succeeded" || self.phase == "Failed"
    }
}

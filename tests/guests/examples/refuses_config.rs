//! A policy that takes one word as its configuration and refuses others; the smallest one there can be otherwise.

use sdk::scheduler::{NodeSet, Pod, Policy, Verdict};

#[derive(Default)]
#[sdk::policy(
    filter,
    weight = 3,
    config = r#"{"type":"object","properties":{"word":{"type":"string"}}}"#
)]
pub struct Particular {
    synced: usize,
}

impl Policy for Particular {
    fn configure(&mut self, config: &[u8]) -> Result<(), String> {
        let config = String::from_utf8_lossy(config);
        if config.contains("please") || config == "{}" {
            Ok(())
        } else {
            Err(format!("the word is missing in {config}"))
        }
    }

    /// Its mirror is the number of bytes it was told.
    fn sync(&mut self, deltas: &[u8]) -> Result<(), String> {
        self.synced += deltas.len();
        Ok(())
    }

    /// The first so many nodes pass. Pod 666 makes it fall over.
    fn filter(&mut self, pod: Pod, among: &NodeSet, _: bool) -> Result<Verdict, String> {
        assert!(pod.id != 666, "the number of the beast");
        Ok(Verdict {
            passed: among.iter().take(self.synced).collect(),
            ..Verdict::default()
        })
    }
}

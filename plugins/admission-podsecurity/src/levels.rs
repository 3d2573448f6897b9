//! Which standard a namespace holds its pods to: the labels `pod-security.kubernetes.io/*`, their levels and versions.

use std::collections::BTreeMap;
use std::fmt;

pub(crate) type Labels = BTreeMap<String, String>;

/// What the labels begin with, and the audit annotations as well.
pub(crate) const PREFIX: &str = "pod-security.kubernetes.io/";

/// From open to strict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "privileged" => Ok(Level::Privileged),
            "baseline" => Ok(Level::Baseline),
            "restricted" => Ok(Level::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

/// The minor version of Kubernetes whose standards apply. One that is still to come has those of the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// `v1.N`.
    Minor(u64),
    Latest,
}

impl Version {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "latest" {
            return Ok(Version::Latest);
        }
        let digits = text.strip_prefix("v1.").unwrap_or_default();
        let one_spelling = digits == "0" || !digits.starts_with(['0', '+']);
        match digits.parse() {
            Ok(minor) if one_spelling => Ok(Version::Minor(minor)),
            _ => Err("must be \"latest\" or \"v1.x\""),
        }
    }

    /// Whether this is Kubernetes 1.`minor` or a later one.
    pub(crate) fn has(self, minor: u64) -> bool {
        self >= Version::Minor(minor)
    }
}

/// A level as it was in a version: `restricted:v1.24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standard {
    pub(crate) level: Level,
    pub(crate) version: Version,
}

#[cfg(test)]
impl Standard {
    /// As it is printed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (level, version) = text.split_once(':')?;
        Some(Self {
            level: Level::parse(level).ok()?,
            version: Version::parse(version).ok()?,
        })
    }
}

/// What happens with pods that violate a standard: they are refused, noted in the audit log, or their writer is warned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) enforce: Standard,
    pub(crate) audit: Standard,
    pub(crate) warn: Standard,
}

impl Policy {
    /// With what is wrong with the labels, as causes are printed. There is always a policy: where a label cannot be read,
    /// `enforce` is as strict as can be, and `audit` and `warn`, which nobody would see the reason of, are silent. Who
    /// enforces a level without a word about warnings is warned at it too, which a workload's writer can see.
    pub(crate) fn of(labels: &Labels) -> (Self, Vec<String>) {
        let mut read = Reader {
            labels,
            wrong: Vec::new(),
        };
        let enforced = read.one("enforce", Level::parse);
        let enforce = Standard {
            level: enforced.map_or(Level::Privileged, |level| level.unwrap_or(Level::Restricted)),
            version: read.version("enforce-version").unwrap_or(Version::Latest),
        };
        let mut silent = |level, version| {
            let level = read
                .one(level, Level::parse)
                .map(|level| level.unwrap_or(Level::Privileged));
            (level, read.version(version))
        };
        let (audit_level, audit_version) = silent("audit", "audit-version");
        let (warn_level, warn_version) = silent("warn", "warn-version");
        let audit = Standard {
            level: audit_level.unwrap_or(Level::Privileged),
            version: audit_version.unwrap_or(Version::Latest),
        };
        let warn = match (warn_level, enforced.flatten()) {
            (None, Some(level)) if level > Level::Privileged => Standard {
                level,
                version: warn_version.unwrap_or(enforce.version),
            },
            _ => Standard {
                level: warn_level.unwrap_or(Level::Privileged),
                version: warn_version.unwrap_or(Version::Latest),
            },
        };
        (Self { enforce, audit, warn }, read.wrong)
    }

    /// Nothing is checked, whatever the versions.
    pub(crate) fn is_open(&self) -> bool {
        let all = [self.enforce, self.audit, self.warn];
        all.iter().all(|standard| standard.level == Level::Privileged)
    }
}

struct Reader<'l> {
    labels: &'l Labels,
    wrong: Vec<String>,
}

impl Reader<'_> {
    /// `None`: there is no such label; `Some(None)`: it cannot be read.
    fn one<T>(&mut self, label: &str, parse: fn(&str) -> Result<T, &'static str>) -> Option<Option<T>> {
        let label = format!("{PREFIX}{label}");
        let text = self.labels.get(&label)?;
        let wrong = |must: &str| format!("metadata.labels[{label}]: Invalid value: {text:?}: {must}");
        Some(parse(text).map_err(|must| self.wrong.push(wrong(must))).ok())
    }

    fn version(&mut self, label: &str) -> Option<Version> {
        Some(self.one(label, Version::parse)?.unwrap_or(Version::Latest))
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Latest => write!(f, "{level}:latest"),
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(labels: &[(&str, &str)]) -> (String, Vec<String>) {
        let labels = labels.iter().map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned()));
        let (policy, wrong) = Policy::of(&labels.collect());
        (format!("{} {} {}", policy.enforce, policy.audit, policy.warn), wrong)
    }

    fn policy(labels: &[(&str, &str)]) -> String {
        told(labels).0
    }

    #[test]
    fn labels_name_a_standard_for_each_mode() {
        assert_eq!(policy(&[]), "privileged:latest privileged:latest privileged:latest");
        assert_eq!(
            policy(&[
                ("enforce", "baseline"),
                ("enforce-version", "v1.30"),
                ("audit", "restricted")
            ]),
            "baseline:v1.30 restricted:latest baseline:v1.30",
            "warnings follow what is enforced"
        );
        assert_eq!(
            policy(&[
                ("enforce", "restricted"),
                ("enforce-version", "v1.30"),
                ("warn-version", "v1.0")
            ]),
            "restricted:v1.30 privileged:latest restricted:v1.0"
        );
        assert_eq!(
            policy(&[("enforce", "restricted"), ("warn", "privileged")]),
            "restricted:latest privileged:latest privileged:latest"
        );
        assert_eq!(
            policy(&[("warn", "baseline"), ("enforce", "restricted")]),
            "restricted:latest privileged:latest baseline:latest"
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_and_enforced_strictly() {
        let labels = [
            ("audit", "strict"),
            ("enforce", "Baseline"),
            ("enforce-version", "1.24"),
            ("warn", ""),
            ("warn-version", "v1.024"),
        ];
        let (policy, wrong) = told(&labels);
        assert_eq!(policy, "restricted:latest privileged:latest privileged:latest");
        let level = "must be one of privileged, baseline, restricted";
        let version = "must be \"latest\" or \"v1.x\"";
        let expected = [
            format!("metadata.labels[{PREFIX}enforce]: Invalid value: \"Baseline\": {level}"),
            format!("metadata.labels[{PREFIX}enforce-version]: Invalid value: \"1.24\": {version}"),
            format!("metadata.labels[{PREFIX}audit]: Invalid value: \"strict\": {level}"),
            format!("metadata.labels[{PREFIX}warn]: Invalid value: \"\": {level}"),
            format!("metadata.labels[{PREFIX}warn-version]: Invalid value: \"v1.024\": {version}"),
        ];
        assert_eq!(wrong, expected);
    }

    #[test]
    fn versions_have_one_spelling_and_an_order() {
        for text in ["latest", "v1.0", "v1.9", "v1.10", "v1.36", "v1.100"] {
            let standard = Standard::parse(&format!("baseline:{text}")).unwrap();
            assert_eq!(standard.to_string(), format!("baseline:{text}"));
        }
        for text in [
            "", "v1", "v1.", "v1.01", "v1.+1", "v1.-1", "v2.0", "v1.24.1", "v1.x", "LATEST",
        ] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
        assert!(Version::Minor(25).has(25) && !Version::Minor(9).has(10));
        assert!(Version::Latest.has(u64::MAX), "whatever is to come");
    }
}

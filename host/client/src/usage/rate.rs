//! From counters to rates, and when to look at the counters again. No clock, no IO.

use std::collections::HashMap;
use std::time::Duration;

use compact_str::CompactString;
use jiff::Timestamp;

/// What is younger is told as it is: the shortest that one may set metrics-server to look anew after.
const FRESH: Duration = Duration::from_secs(10);
/// Between the two readings of a question that nobody asked before. Of a process the kernel counts hundredths of a second.
const APART: Duration = Duration::from_secs(2);
/// A rate over more than this tells nothing of the present.
const STALE: Duration = Duration::from_secs(60);
/// A container that has run for this long has a rate since its start. (That is known by the second only, on some nodes.)
const YOUNG: Duration = Duration::from_secs(10);

/// The counters of one node or container at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub at: Timestamp,
    /// Nanoseconds of processor time.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
    /// When the counter was zero, where that is told.
    pub started: Option<Timestamp>,
}

/// Namespace and name.
pub(super) type Pod = (CompactString, CompactString);

/// What all nodes told in one round.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub nodes: HashMap<CompactString, Point>,
    pub pods: HashMap<Pod, Vec<(CompactString, Point)>>,
}

/// What something used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Billionths of a processor, on the average of the window.
    pub cpu: u64,
    /// Bytes that could not be taken back under pressure (the working set), at the end of the window.
    pub memory: u64,
    /// The end of the window.
    pub at: Timestamp,
    pub window: Duration,
}

/// What the containers of a pod used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodUsed {
    /// By name, in order. Never empty.
    pub containers: Vec<(CompactString, Used)>,
}

impl PodUsed {
    /// Of the container that was looked at first: its end and length stand for the pod's.
    pub fn window(&self) -> (Timestamp, Duration) {
        let ends = self.containers.iter().map(|(_, used)| (used.at, used.window));
        ends.min().unwrap_or_default()
    }
}

/// A point, and the rate that it ended.
#[derive(Debug, Clone, Copy)]
struct Counted {
    point: Point,
    used: Option<Used>,
}

/// What nodes and pods used, as it was last looked at. Of each there is one point and one rate.
#[derive(Debug, Default)]
pub struct Usages {
    nodes: HashMap<CompactString, Counted>,
    pods: HashMap<Pod, Box<[(CompactString, Counted)]>>,
}

impl Usages {
    /// `None` for a node that has told nothing, or only once.
    pub fn node(&self, name: &str) -> Option<Used> {
        self.nodes.get(name)?.used
    }

    /// `None` unless there is a rate of each of its running containers.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<PodUsed> {
        let containers = self.pods.get(&(namespace.into(), name.into()))?;
        let rates = containers.iter().map(|(name, of)| Some((name.clone(), of.used?)));
        Some(PodUsed {
            containers: rates.collect::<Option<_>>()?,
        })
    }

    /// After another round. What was not told of is forgotten.
    pub(super) fn after(&self, batch: Batch) -> Self {
        let nodes = batch.nodes.into_iter().map(|(name, point)| {
            let before = self.nodes.get(&name);
            (name, count(before, point))
        });
        let pods = batch.pods.into_iter().map(|(pod, mut containers)| {
            containers.sort_by(|a, b| a.0.cmp(&b.0));
            let before = self.pods.get(&pod).map_or(&[][..], |containers| containers);
            let counted = containers.into_iter().map(|(name, point)| {
                let before = before.iter().find(|(of, _)| *of == name).map(|(_, counted)| counted);
                (name, count(before, point))
            });
            let counted = counted.collect();
            (pod, counted)
        });
        Self {
            nodes: nodes.collect(),
            pods: pods.collect(),
        }
    }
}

/// A runtime that measures on a rhythm of its own may tell the same point twice: then its rate stands.
fn count(before: Option<&Counted>, point: Point) -> Counted {
    match before {
        Some(before) if before.point.at >= point.at => *before,
        _ => Counted {
            used: rate(before.map(|before| before.point), point),
            point,
        },
    }
}

/// `None` if nothing is known of an earlier time: the first look, or another container of that name.
fn rate(before: Option<Point>, now: Point) -> Option<Used> {
    let (since, cpu) = match before {
        Some(before) if before.cpu <= now.cpu && now.started.is_none_or(|started| started <= before.at) => {
            (before.at, before.cpu)
        }
        _ => (now.started.filter(|started| is_young(*started, now.at))?, 0),
    };
    let window = Duration::try_from(now.at.duration_since(since)).ok()?;
    let nanos = window.as_nanos();
    if nanos == 0 {
        return None;
    }
    let rate = u128::from(now.cpu - cpu) * 1_000_000_000 / nanos;
    Some(Used {
        cpu: u64::try_from(rate).unwrap_or(u64::MAX),
        memory: now.memory,
        at: now.at,
        window,
    })
}

fn is_young(started: Timestamp, at: Timestamp) -> bool {
    Duration::try_from(at.duration_since(started)).is_ok_and(|age| (YOUNG..=STALE).contains(&age))
}

/// What has to be done before a question is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Answer,
    /// Look at the counters; `anew`: as if for the first time.
    Look {
        anew: bool,
    },
    Wait(Duration),
}

/// `age`: of the last look, if there was one; `rated`: it was not the first.
pub(super) fn step(age: Option<Duration>, rated: bool) -> Step {
    match age {
        Some(age) if age > STALE => Step::Look { anew: true },
        Some(age) if rated && age < FRESH => Step::Answer,
        Some(age) if !rated && age < APART => Step::Wait(APART - age),
        Some(_) => Step::Look { anew: false },
        None => Step::Look { anew: true },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap()
    }

    /// Milliseconds when and since when, nanoseconds of CPU. The memory is the time.
    fn point(when: i64, cpu: u64, started: Option<i64>) -> Point {
        Point {
            at: at(when),
            cpu,
            memory: when as u64,
            started: started.map(at),
        }
    }

    #[test]
    fn two_points_make_a_rate() {
        const S: u64 = 1_000_000_000;
        for (says, before, now, expected) in [
            (
                "half a processor",
                Some((0, S, None)),
                (2000, 2 * S, None),
                Some((500_000_000, 2000)),
            ),
            (
                "two and a half",
                Some((0, 0, None)),
                (2000, 5 * S, None),
                Some((2_500_000_000, 2000)),
            ),
            ("nothing done", Some((0, S, None)), (15_000, S, None), Some((0, 15_000))),
            ("the first look", None, (2000, S, None), None),
            ("the first look at an old one", None, (100_000, S, Some(0)), None),
            (
                "the first look at a young one",
                None,
                (20_000, S, Some(0)),
                Some((50_000_000, 20_000)),
            ),
            ("the first look at one just born", None, (9_000, S, Some(0)), None),
            ("the counter went back", Some((0, 2 * S, None)), (2000, S, None), None),
            (
                "started after the first look",
                Some((0, S, Some(-5))),
                (15_000, 2 * S, Some(14_000)),
                None,
            ),
            (
                "and 10 s ago",
                Some((0, 2 * S, Some(-5))),
                (15_000, S, Some(5000)),
                Some((100_000_000, 10_000)),
            ),
            (
                "started before the first look",
                Some((0, S, Some(-5))),
                (1000, 2 * S, Some(-5)),
                Some((S, 1000)),
            ),
            ("the clock went back", Some((0, S, None)), (-1000, 2 * S, None), None),
            ("a clock that stands", Some((0, S, None)), (0, 2 * S, None), None),
        ] {
            let of = |(when, cpu, started): (i64, u64, Option<i64>)| point(when, cpu, started);
            let used = rate(before.map(of), of(now)).map(|used| {
                assert_eq!((used.memory, used.at), (now.0 as u64, at(now.0)), "{says}");
                (used.cpu, used.window.as_millis() as i64)
            });
            assert_eq!(used, expected, "{says}");
        }
    }

    fn batch(pods: &[(&str, &[(&str, Point)])], node: Point) -> Batch {
        let mut batch = Batch::default();
        batch.nodes.insert("n1".into(), node);
        for (pod, containers) in pods {
            let containers = containers.iter().map(|(name, point)| ((*name).into(), *point));
            batch
                .pods
                .insert(("default".into(), (*pod).into()), containers.collect());
        }
        batch
    }

    #[test]
    fn a_pod_is_told_of_when_all_its_containers_are() {
        let first = point(0, 0, None);
        let usages = Usages::default().after(batch(&[("web", &[("a", first)]), ("gone", &[("a", first)])], first));
        assert!(usages.node("n1").is_none() && usages.pod("default", "web").is_none());

        let second = point(2000, 1_000_000_000, None);
        let usages = usages.after(batch(&[("web", &[("b", second), ("a", second)])], second));
        assert_eq!(usages.node("n1").map(|used| used.cpu), Some(500_000_000));
        assert_eq!(usages.pod("default", "web"), None, "b is new");
        assert_eq!(usages.pod("default", "gone"), None);

        let third = point(4000, 3_000_000_000, None);
        let usages = usages.after(batch(
            &[("web", &[("b", point(3900, 2_000_000_000, None)), ("a", third)])],
            third,
        ));
        let web = usages.pod("default", "web").unwrap();
        let told: Vec<_> = web
            .containers
            .iter()
            .map(|(name, used)| (name.as_str(), used.cpu))
            .collect();
        assert_eq!(told, [("a", 1_000_000_000), ("b", 526_315_789)]);
        assert_eq!(web.window(), (at(3900), Duration::from_millis(1900)));
        assert_eq!(usages.pod("other", "web"), None);
    }

    #[test]
    fn a_point_told_twice_keeps_its_rate() {
        let mut usages = Usages::default();
        for seconds in [0, 2, 2] {
            let point = point(seconds * 1000, seconds as u64 * 1_000_000_000, None);
            usages = usages.after(batch(&[("web", &[("a", point)])], point));
        }
        assert_eq!(usages.pod("default", "web").unwrap().containers[0].1.cpu, 1_000_000_000);
        assert_eq!(usages.node("n1").unwrap().window, Duration::from_secs(2));
    }

    #[test]
    fn who_asks_decides_when_to_look() {
        let secs = Duration::from_secs_f32;
        for (says, age, rated, expected) in [
            ("never looked", None, false, Step::Look { anew: true }),
            ("looked once just now", Some(0.5), false, Step::Wait(secs(1.5))),
            ("looked once a while ago", Some(2.0), false, Step::Look { anew: false }),
            ("looked twice", Some(0.0), true, Step::Answer),
            ("still fresh", Some(9.9), true, Step::Answer),
            ("no more", Some(10.0), true, Step::Look { anew: false }),
            ("a minute ago", Some(60.0), true, Step::Look { anew: false }),
            ("longer ago", Some(60.1), true, Step::Look { anew: true }),
            ("once, and longer ago", Some(60.1), false, Step::Look { anew: true }),
        ] {
            assert_eq!(step(age.map(secs), rated), expected, "{says}");
        }
    }
}

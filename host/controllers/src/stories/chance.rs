//! Hundreds of steps by dice: whatever goes wrong, nothing is doubled or forgotten.

use super::*;

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn among_refusals_gaps_and_swaps_nothing_is_doubled_or_forgotten() {
    const SETS_THERE: u64 = 12;
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) >> 1);
    eprintln!("SEED={seed}");
    let fake = Fake::new();
    let trouble = Arc::new(Mutex::new(Dice(seed ^ 1)));
    let most = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let over = Arc::new(Mutex::new(Vec::new()));
    fake.before_write(move |_, write| {
        let unlucky = trouble.lock().below(5) == 0;
        let key = ObjectKey::new(
            write.target.gvr.group_resource(),
            &write.target.namespace,
            &write.target.name,
        );
        unlucky.then(|| Failure::modified(key))
    });
    let native = Native::new("apps/v1/ReplicaSet", replicas("a"));
    let stage = stage_with(&fake, native.clone(), 4, None);
    let mut dice = Dice(seed);
    let mut wanted = BTreeMap::new();
    let name_of = |pod: &model::Object| {
        pod.key
            .name
            .rsplit_once('-')
            .map_or(String::new(), |(set, _)| set.to_owned())
    };
    for step in 0..400 {
        let name = format!("s{}", dice.below(SETS_THERE));
        match dice.below(12) {
            0 => native.swap(replicas("a")),
            1 => fake.break_watches(),
            2 => fake.hold_watches("pods"),
            3 => fake.release_watches("pods"),
            4 => {
                let pods = fake.objects("pods");
                if !pods.is_empty() {
                    fake.remove(&pods[dice.below(pods.len() as u64) as usize].key);
                }
            }
            _ => {
                let replicas = dice.below(9) as i64;
                fake.put(set(&name, replicas));
                let mut most = most.lock();
                let known = most.entry(name.clone()).or_default();
                *known = (*known).max(replicas as usize);
                wanted.insert(name, replicas);
            }
        }
        if step % 3 == 0 {
            tokio::task::yield_now().await;
        }
        let mut count = BTreeMap::<String, usize>::new();
        fake.objects("pods")
            .iter()
            .for_each(|pod| *count.entry(name_of(pod)).or_default() += 1);
        for (name, count) in count {
            if count > most.lock().get(&name).copied().unwrap_or(0) {
                over.lock().push((step, name, count));
            }
        }
    }
    fake.release_watches("pods");
    let settled = |fake: &Fake| {
        let mut count = BTreeMap::<String, i64>::new();
        fake.objects("pods")
            .iter()
            .for_each(|pod| *count.entry(name_of(pod)).or_default() += 1);
        wanted
            .iter()
            .all(|(name, wanted)| count.get(name).copied().unwrap_or(0) == *wanted && status(fake, name) == *wanted)
    };
    let wait = tokio::time::timeout(Duration::from_secs(60), fake.until(settled)).await;
    assert!(
        wait.is_ok(),
        "seed {seed}: {wanted:?} never came about; {:?}",
        stage.controller.figures()
    );
    // More pods than a set ever wanted at once: somebody created on a view that lacked its own pods.
    assert_eq!(*over.lock(), [], "seed {seed}");
    assert!(stage.controller.figures().refusals > 0, "the trouble was real");
}

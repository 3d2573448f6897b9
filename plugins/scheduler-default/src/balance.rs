//! NodeResourcesBalancedAllocation: cpu and memory are used in like shares.

use sdk::scheduler::records::Class;

use crate::mirror::Mirror;

/// 0 to 100: 100 less the standard deviation of the shares in use with the pod there, in percent. Pods that ask for nothing
/// change no balance and get 0 everywhere.
pub fn score(mirror: &Mirror, class: &Class, slot: u32) -> i32 {
    let ask = |resource: usize| {
        let asked = class.requests.iter().find(|&&(r, _)| r as usize == resource);
        asked.map_or(0, |&(_, amount)| amount)
    };
    if ask(0) == 0 && ask(1) == 0 {
        return 0;
    }
    let share = |resource: usize| {
        let column = mirror.columns.get(resource)?;
        let all = column.allocatable[slot as usize];
        let used = column.used[slot as usize] + ask(resource);
        (all > 0).then(|| if used < all { used as f64 / all as f64 } else { 1.0 })
    };
    // The standard deviation of two shares is half their distance; of one it is none.
    match (share(0), share(1)) {
        (Some(cpu), Some(memory)) => ((1.0 - (cpu - memory).abs() / 2.0) * 100.0) as i32,
        _ => 100,
    }
}

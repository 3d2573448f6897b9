//! Which endpoint takes the next connection of a client.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::doors::Route;

/// Clients remembered per door. More are served, but not remembered.
const MOST_CLIENTS: usize = 65_536;
/// Endpoints tried for one connection.
const MOST_TRIES: usize = 5;

/// Takes turns over a route that may change at any time.
pub struct Balancer {
    route: RwLock<Arc<Route>>,
    turn: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, (SocketAddr, Instant)>>,
}

impl Balancer {
    pub fn new(route: Route) -> Self {
        Self {
            route: RwLock::new(Arc::new(route)),
            turn: AtomicUsize::new(0),
            clients: Mutex::default(),
        }
    }

    /// New connections follow `route` from now on.
    pub fn change(&self, route: Route) {
        let mut now = self.route.write().unwrap_or_else(PoisonError::into_inner);
        if **now != route {
            *now = Arc::new(route);
        }
    }

    pub fn route(&self) -> Arc<Route> {
        self.route.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The endpoints to try for `client`, best first.
    pub fn order(&self, client: IpAddr, now: Instant) -> Vec<SocketAddr> {
        let route = self.route();
        let known = route.affinity.and_then(|timeout| self.known(client, timeout, now));
        order(&route.endpoints, self.turn.fetch_add(1, Ordering::Relaxed), known)
    }

    /// `endpoint` took a connection of `client`: with affinity, its next ones go there too.
    pub fn served(&self, client: IpAddr, endpoint: SocketAddr, now: Instant) {
        let Some(timeout) = self.route().affinity else {
            return;
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MOST_CLIENTS && !clients.contains_key(&client) {
            clients.retain(|_, (_, last)| now.duration_since(*last) < timeout);
            if clients.len() >= MOST_CLIENTS {
                return;
            }
        }
        clients.insert(client, (endpoint, now));
    }

    fn known(&self, client: IpAddr, timeout: Duration, now: Instant) -> Option<SocketAddr> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let (endpoint, last) = clients.get(&client)?;
        (now.duration_since(*last) < timeout).then_some(*endpoint)
    }
}

/// From where `turn` points, around; the endpoint the client knows comes first if it is still there.
fn order(endpoints: &[SocketAddr], turn: usize, known: Option<SocketAddr>) -> Vec<SocketAddr> {
    let start = turn % endpoints.len().max(1);
    let (before, after) = endpoints.split_at(start);
    let known = known.filter(|at| endpoints.contains(at));
    let others = after.iter().chain(before).copied().filter(|at| Some(*at) != known);
    known.into_iter().chain(others).take(MOST_TRIES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Protocol;
    use crate::plan::{Family, PortName};

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 1, 0, last], 80))
    }

    #[test]
    fn turns_go_round_and_a_known_endpoint_comes_first() {
        let all = [at(1), at(2), at(3)];
        assert_eq!(order(&all, 0, None), [at(1), at(2), at(3)]);
        assert_eq!(order(&all, 4, None), [at(2), at(3), at(1)]);
        assert_eq!(order(&all, 0, Some(at(3))), [at(3), at(1), at(2)]);
        assert_eq!(
            order(&all, 1, Some(at(9))),
            [at(2), at(3), at(1)],
            "one that is gone is not tried"
        );
        assert!(order(&[], 7, None).is_empty());
    }

    #[test]
    fn affinity_ends_after_its_timeout() {
        let route = Route {
            service: PortName {
                namespace: "ns".into(),
                service: "web".into(),
                port: String::new(),
                protocol: Protocol::Tcp,
                family: Family::V4,
            },
            endpoints: vec![at(1), at(2)],
            affinity: Some(Duration::from_secs(10)),
            open_to: Vec::new(),
        };
        let balancer = Balancer::new(route);
        let client = IpAddr::from([127, 0, 0, 1]);
        let start = Instant::now();
        balancer.served(client, at(2), start);
        for _ in 0..4 {
            assert_eq!(balancer.order(client, start + Duration::from_secs(9))[0], at(2));
        }
        let later = start + Duration::from_secs(10);
        assert_ne!(
            balancer.order(client, later)[0],
            balancer.order(client, later)[0],
            "turns again"
        );
    }
}

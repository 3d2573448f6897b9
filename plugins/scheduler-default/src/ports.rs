//! NodePorts: host ports that nobody on the node has.

use sdk::scheduler::records::{Class, Port};

use crate::mirror::Mirror;

pub fn free(mirror: &Mirror, class: &Class, slot: u32) -> bool {
    class.ports.is_empty()
        || !class
            .ports
            .iter()
            .any(|wanted| mirror.ports(slot).iter().any(|taken| clash(wanted, taken)))
}

fn clash(a: &Port, b: &Port) -> bool {
    a.protocol == b.protocol && a.port == b.port && (a.address == b.address || a.address == 0 || b.address == 0)
}

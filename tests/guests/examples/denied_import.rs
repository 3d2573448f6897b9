//! Wants to talk to the network.

use std::io::Write;
use std::net::TcpStream;

use sdk::controller::Unread;
use sdk::{Error, Outcome, Request, View};

#[sdk::controller(of = "v1/ConfigMap")]
fn reconcile(_: Unread, _: &View, request: &Request) -> sdk::Result<Outcome> {
    let mut stream = TcpStream::connect(request.key.name.as_str()).map_err(Error::internal)?;
    stream.write_all(b"secrets").map_err(Error::internal)?;
    Ok(Outcome::new())
}

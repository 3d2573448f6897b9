//! One HTTP request as a client without patience for retries makes it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a client waits for a connection, and for each read.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// As it came, chunk sizes and all: enough to look for words in.
    pub body: String,
}

/// `GET path` on a connection of its own. `Err` says where it broke.
pub fn get(address: &str, path: &str) -> Result<Answer, String> {
    let target: SocketAddr = address
        .parse()
        .map_err(|error| format!("{address:?} is no address: {error}"))?;
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE).map_err(|error| format!("connect: {error}"))?;
    let limits = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    limits.map_err(|error| error.to_string())?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .map_err(|error| format!("send: {error}"))?;
    let mut text = Vec::new();
    stream
        .read_to_end(&mut text)
        .map_err(|error| format!("receive: {error}"))?;
    let text = String::from_utf8_lossy(&text);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| format!("the answer broke off: {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer {
        status: status.ok_or_else(|| format!("no status: {head:?}"))?,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn serve(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn an_answer_is_whole_or_a_failure() {
        let good = get(&serve("HTTP/1.1 200 OK\r\n\r\nhello from a\n"), "/").unwrap();
        assert_eq!((good.status, good.body.as_str()), (200, "hello from a\n"));
        assert_eq!(get(&serve("HTTP/1.1 503 No\r\n\r\n"), "/").unwrap().status, 503);
        assert!(get(&serve(""), "/").unwrap_err().contains("broke off"));
        assert!(get("127.0.0.1:1", "/").unwrap_err().starts_with("connect"));
    }
}

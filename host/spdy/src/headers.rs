//! Header blocks of SPDY/3.1: names and values, deflated with the dictionary of the specification (section 2.6.10).
//!
//! One deflate stream runs through all blocks of a direction, so blocks must be read and written in order and none may
//! be left out.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::reader::wrong;

/// A stream's headers take this much at most, once inflated. Kubernetes' clients send less than a hundred bytes.
const LIMIT: usize = 16 << 10;

/// The dictionary's first part: each word with its length before it.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow \
authorization cache-control connection content-base content-encoding content-language content-length content-location content-md5 \
content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range \
if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after \
server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK version \
HTTP/1.1 url public set-cookie keep-alive origin";

/// Its second part, as it is.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec \
00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1423);
    for word in WORDS.split(' ') {
        text(&mut bytes, &word.replace('_', " "));
    }
    bytes.extend_from_slice(TEXT.as_bytes());
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// Names (lower case, as SPDY demands) and values, in the order sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Empty if there is none.
    pub fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    fn parse(mut rest: &[u8]) -> io::Result<Self> {
        let count = number(&mut rest)?;
        // Each takes eight bytes at least, so a forged count cannot reserve more than was sent.
        if count > rest.len() / 8 {
            return Err(wrong("more headers announced than sent"));
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            headers.push((string(&mut rest)?, string(&mut rest)?));
        }
        Ok(Self(headers))
    }

    fn encoded(&self) -> Vec<u8> {
        let mut bytes = (self.0.len() as u32).to_be_bytes().to_vec();
        for (name, value) in &self.0 {
            text(&mut bytes, &name.to_ascii_lowercase());
            text(&mut bytes, value);
        }
        bytes
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Headers {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).into())
    }
}

fn number(rest: &mut &[u8]) -> io::Result<usize> {
    let (head, tail) = rest.split_first_chunk().ok_or_else(|| wrong("a header block is cut"))?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head) as usize)
}

fn string(rest: &mut &[u8]) -> io::Result<String> {
    let length = number(rest)?;
    let (head, tail) = rest
        .split_at_checked(length)
        .ok_or_else(|| wrong("a header block is cut"))?;
    *rest = tail;
    String::from_utf8(head.to_vec()).map_err(|_| wrong("a header is not UTF-8"))
}

/// Reads the blocks of one direction.
pub(crate) struct Inflate(Decompress);

impl Inflate {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// # Errors
    /// `InvalidData` for what is no header block, or one that is too large; the connection cannot go on after it.
    pub(crate) fn block(&mut self, mut deflated: &[u8]) -> io::Result<Headers> {
        let mut plain = vec![0; LIMIT];
        let mut length = 0;
        while !deflated.is_empty() {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let done = self.0.decompress(deflated, &mut plain[length..], FlushDecompress::Sync);
            deflated = &deflated[(self.0.total_in() - read) as usize..];
            length += (self.0.total_out() - written) as usize;
            match done {
                // The very first block asks for the dictionary.
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.0.set_dictionary(&dictionary());
                    set.map_err(|_| wrong("headers deflated with an unknown dictionary"))?;
                }
                Err(_) => return Err(wrong("headers that cannot be inflated")),
                Ok(Status::StreamEnd) => return Err(wrong("the stream of headers was ended")),
                Ok(_) if length == LIMIT => return Err(wrong("headers of more than 16 KiB")),
                Ok(Status::BufError) => break,
                Ok(Status::Ok) => {}
            }
        }
        Headers::parse(&plain[..length])
    }
}

/// Writes the blocks of one direction.
pub(crate) struct Deflate(Compress);

impl Deflate {
    pub(crate) fn new() -> io::Result<Self> {
        let mut deflate = Compress::new(Compression::fast(), true);
        deflate.set_dictionary(&dictionary()).map_err(io::Error::other)?;
        Ok(Self(deflate))
    }

    pub(crate) fn block(&mut self, headers: &Headers) -> io::Result<Vec<u8>> {
        let plain = headers.encoded();
        // Room for what does not get smaller, and for the empty block that ends a flush.
        let mut deflated = Vec::with_capacity(plain.len() + plain.len() / 8 + 64);
        self.0
            .compress_vec(&plain, &mut deflated, FlushCompress::Sync)
            .map_err(io::Error::other)?;
        Ok(deflated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_that_of_the_specification() {
        let bytes = dictionary();
        let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (b + a) % 65521)
        });
        assert_eq!(
            (bytes.len(), (b << 16) | a),
            (1423, 0xe3c6_a7c2),
            "its Adler-32 stands in every first block"
        );
    }

    #[test]
    fn blocks_come_back_as_they_went_in_order() {
        let (mut write, mut read) = (Deflate::new().unwrap(), Inflate::new());
        for headers in [
            Headers::from([("streamtype", "error"), ("port", "8080"), ("requestid", "0")]),
            Headers::default(),
            Headers::from([("streamtype", "data"), ("port", "8080"), ("requestid", "0")]),
        ] {
            let block = write.block(&headers).unwrap();
            assert_eq!(read.block(&block).unwrap(), headers);
        }
    }

    #[test]
    fn hostile_blocks_are_refused() {
        assert!(Inflate::new().block(b"no deflate at all").is_err());
        let long = "x".repeat(LIMIT);
        let block = Deflate::new().unwrap().block(&Headers::from([("a", long.as_str())]));
        assert!(Inflate::new().block(&block.unwrap()).is_err());
        for cut in [
            &b"\0\0\0\x01"[..],
            b"\0\0\0\x01\0\0\0\x05ab\0\0\0\0",
            b"\xff\xff\xff\xff",
            b"",
        ] {
            assert!(Headers::parse(cut).is_err(), "{cut:?}");
        }
    }
}

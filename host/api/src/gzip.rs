//! Large answers are compressed for clients that take it, on threads that may block: a list of ten thousand pods would
//! hold up everyone else on the runtime's own for a tenth of a second.

use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::thread::available_parallelism;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use crate::body::Joined;
use crate::negotiate;

/// Answers are compressed from this size on (Kubernetes' own threshold).
const FROM: u64 = 128 * 1024;

/// The fastest, as kube-apiserver: on a fast network anything more costs time.
const LEVEL: u32 = 1;

/// The compressed bytes leave in pieces of about this size.
const PIECE: usize = 64 * 1024;

/// As many at once as there are processors; the others wait with their answers as they are, which cost nothing more.
pub(crate) fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(available_parallelism().map_or(2, usize::from)))
}

/// Marks an answer that is not ours: it comes from a node or a pod as it likes, and goes on as it comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leave;

/// The middleware. Watches and streams have no known length and are never compressed: each event must leave at once.
pub(crate) async fn pass(State(turns): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let wanted = takes_gzip(request.headers());
    let response = next.run(request).await;
    let large = response.body().size_hint().exact().is_some_and(|size| size >= FROM);
    if !large || response.extensions().get::<Leave>().is_some() {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let accept_encoding = HeaderValue::from_static("Accept-Encoding");
    head.headers.append(header::VARY, accept_encoding);
    if !wanted {
        return Response::from_parts(head, body);
    }
    // What is this long lies in memory already: its pieces are shared with the cache.
    let pieces = pieces(body).await;
    let Ok(turn) = turns.acquire_owned().await else {
        return Response::from_parts(head, Body::new(joined(pieces)));
    };
    let work = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let small = compress(&pieces);
        (pieces, small)
    });
    let body = match work.await {
        Ok((_, Ok(small))) => {
            let gzip = HeaderValue::from_static("gzip");
            head.headers.insert(header::CONTENT_ENCODING, gzip);
            head.headers.remove(header::CONTENT_LENGTH);
            joined(small)
        }
        Ok((pieces, Err(error))) => {
            tracing::warn!(%error, "an answer could not be compressed");
            joined(pieces)
        }
        Err(error) => {
            use axum::response::IntoResponse;
            return crate::reject::Reject(model::Failure::internal(error)).into_response();
        }
    };
    Response::from_parts(head, Body::new(body))
}

/// `gzip`, unless with `q=0`. `*` is what nobody sends who means it.
fn takes_gzip(headers: &HeaderMap) -> bool {
    negotiate::text(headers, header::ACCEPT_ENCODING).split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        parts.next() == Some("gzip")
            && !parts.any(|p| p.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0))
    })
}

/// Our own answers of known length are made of what is there, so that this never waits and never fails half-way.
async fn pieces(body: Body) -> Vec<Bytes> {
    let mut body = pin!(body);
    let mut pieces = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        pieces.extend(frame.into_data());
    }
    pieces
}

fn compress(pieces: &[Bytes]) -> std::io::Result<Vec<Bytes>> {
    let mut out = Vec::new();
    let mut gzip = GzEncoder::new(Vec::with_capacity(2 * PIECE), Compression::new(LEVEL));
    for piece in pieces {
        gzip.write_all(piece)?;
        if gzip.get_ref().len() >= PIECE {
            out.push(std::mem::replace(gzip.get_mut(), Vec::with_capacity(2 * PIECE)).into());
        }
    }
    out.push(gzip.finish()?.into());
    Ok(out)
}

fn joined(pieces: Vec<Bytes>) -> Joined {
    let mut whole = Joined::default();
    pieces.into_iter().for_each(|piece| whole.push(piece));
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn pieces_come_back_as_they_were() {
        let pieces: Vec<Bytes> = (0..3000).map(|i| format!("piece {i} ").repeat(i % 90).into()).collect();
        let small = compress(&pieces).unwrap().concat();
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&small[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, pieces.concat());
    }

    #[test]
    fn who_takes_gzip_gets_it() {
        for (accept, expected) in [
            ("gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("", false),
            ("identity", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, accept.parse().unwrap());
            assert_eq!(takes_gzip(&headers), expected, "{accept}");
        }
    }
}

//! Between hickory's server and [`Domain::answer`]: messages in, messages out.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use hickory_proto::op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use super::answer::{Answer, Domain};
use super::forward::Forwarder;
use super::zone::Zone;

/// The largest UDP answer, whatever the client offers: larger ones are cut to pieces on the way (DNS flag day 2020).
const LARGEST_UDP: u16 = 1232;

pub struct Handler {
    domain: Domain,
    /// `None` until the cluster was read once.
    zone: Arc<RwLock<Option<Arc<Zone>>>>,
    forwarder: Option<Forwarder>,
    turn: AtomicUsize,
}

impl Handler {
    pub fn new(domain: Domain, zone: Arc<RwLock<Option<Arc<Zone>>>>, forwarder: Option<Forwarder>) -> Self {
        Self {
            domain,
            zone,
            forwarder,
            turn: AtomicUsize::new(0),
        }
    }

    /// The answer, and whether we speak for the name.
    async fn answer(&self, request: &Request) -> (Answer, bool) {
        let [query] = request.queries.queries() else {
            return (code(ResponseCode::FormErr), false);
        };
        if request.metadata.op_code != OpCode::Query {
            return (code(ResponseCode::NotImp), false);
        }
        if query.query_class() != DNSClass::IN {
            return (code(ResponseCode::Refused), false);
        }
        let tcp = request.protocol() != Protocol::Udp;
        let (name, kind) = (query.original().name(), query.query_type());
        let zone = self.zone.read().unwrap_or_else(PoisonError::into_inner).clone();
        let own = match &zone {
            None if self.domain.is_ours(name) => return (code(ResponseCode::ServFail), false),
            None => None,
            Some(zone) => self.domain.answer(zone, name, kind),
        };
        let Some(mut answer) = own else {
            return match &self.forwarder {
                Some(forwarder) => (forwarder.ask(name, kind, tcp).await, false),
                None => (code(ResponseCode::Refused), false),
            };
        };
        self.take_turns(&mut answer, kind);
        // Stub resolvers do not follow aliases: who answers must.
        if let (Some(target), Some(forwarder)) = (answer.continues_at.take(), &self.forwarder) {
            let rest = forwarder.ask(&target, kind, tcp).await;
            answer.code = rest.code;
            answer.records.extend(rest.records);
            answer.soa = rest.soa;
        }
        (answer, true)
    }

    /// Clients take the first address: let it be another one each time.
    fn take_turns(&self, answer: &mut Answer, kind: RecordType) {
        if matches!(kind, RecordType::A | RecordType::AAAA) {
            let start = answer.records.iter().position(|r| r.record_type() == kind).unwrap_or(0);
            let addresses = &mut answer.records[start..];
            if addresses.len() > 1 {
                addresses.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len());
            }
        }
    }
}

pub fn code(code: ResponseCode) -> Answer {
    Answer {
        code,
        records: Vec::new(),
        additionals: Vec::new(),
        soa: None,
        continues_at: None,
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut to: R) -> ResponseInfo {
        let (answer, ours) = self.answer(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = ours;
        metadata.recursion_available = self.forwarder.is_some();
        metadata.response_code = answer.code;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, LARGEST_UDP))
                .set_version(0);
            edns
        });
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let response = builder.build(metadata, &answer.records, [], &answer.soa, &answer.additionals);
        match to.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "an answer was not sent");
                let mut metadata = Metadata::new(request.metadata.id, MessageType::Response, OpCode::Query);
                metadata.response_code = ResponseCode::ServFail;
                ResponseInfo::from(Header {
                    metadata,
                    counts: HeaderCounts::default(),
                })
            }
        }
    }
}

//! A `wasi:http/proxy` for pods: says hello, and does as its path says.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let variable = |name: &str| {
            wasip2::cli::environment::get_environment()
                .into_iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v)
                .unwrap_or_default()
        };
        let (status, text) = match path.as_str() {
            "/" => (200, format!("hello from {}\n", variable("POD_NAME"))),
            "/healthz" => (200, "ok\n".to_owned()),
            "/missing" => (404, "missing\n".to_owned()),
            "/trap" => panic!("asked to"),
            "/spin" => loop {
                std::hint::black_box(());
            },
            "/slow" => {
                wasip2::clocks::monotonic_clock::subscribe_duration(1_000_000_000).block();
                (200, "slow\n".to_owned())
            }
            path => (200, format!("{path}\n")),
        };
        println!("{path} {status}");
        let response = OutgoingResponse::new(Fields::new());
        response.set_status_code(status).expect("a status");
        let body = response.body().expect("the first body");
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().expect("the first stream");
        let _ = stream.blocking_write_and_flush(text.as_bytes());
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}

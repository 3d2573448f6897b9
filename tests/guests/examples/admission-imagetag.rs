//! Keeps out pods whose images have neither tag nor digest.

use sdk::Fields;
use sdk::admission::{Answer, Request};

#[derive(Fields, Clone, Debug)]
struct Pod {
    #[at(".spec.containers[*].image")]
    images: Vec<String>,
}

#[sdk::admission(on = ["create pods"])]
fn review(request: Request<Pod>) -> sdk::Result<Answer> {
    let images = request.object.map(|pod| pod.images).unwrap_or_default();
    Ok(match images.iter().find(|image| !is_pinned(image)) {
        Some(image) => Answer::deny(format!("image {image:?} has no tag: write {image}:VERSION")),
        None => Answer::allow(),
    })
}

/// The host part may hold a colon too, for its port.
fn is_pinned(image: &str) -> bool {
    image.contains('@') || image.rsplit('/').next().is_some_and(|name| name.contains(':'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_port_is_no_tag() {
        assert!(super::is_pinned("localhost:5000/app:v1"));
        assert!(!super::is_pinned("localhost:5000/app"));
    }
}

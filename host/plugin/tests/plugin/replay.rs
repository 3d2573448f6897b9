//! A plugin is a function: the same reads give the same bytes, in whichever instance.

use crate::{Echo, controller, request};

#[tokio::test]
async fn a_fresh_instance_answers_the_same() {
    let good = controller("well_behaved", None).await;
    for memo in ["0", "1", "9"] {
        let asked = request(memo.as_bytes());
        let answer = good.reconcile(&asked, Box::new(Echo)).await.unwrap().unwrap();
        let replayed = good.replay(&asked, Box::new(Echo)).await.unwrap().unwrap();
        assert_eq!(format!("{answer:?}"), format!("{replayed:?}"));
    }
}

#[tokio::test]
async fn state_hidden_in_an_instance_is_found() {
    let liar = controller("hidden_state", None).await;
    let asked = request(b"");
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(liar.reconcile(&asked, Box::new(Echo)).await.unwrap().unwrap().memo);
    }
    let replayed = liar.replay(&asked, Box::new(Echo)).await.unwrap().unwrap().memo;
    assert_eq!(replayed, [0]);
    assert_ne!(answers.last(), Some(&replayed), "a reused instance answers otherwise");
}

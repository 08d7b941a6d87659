use super::stream::{Parser, SentEvent};
use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Answers one request with these bytes, whatever is asked.
async fn one_answer(answer: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        assert!(socket.read(&mut request).await.unwrap() > 0);
        socket.write_all(answer.as_bytes()).await.unwrap();
    });
    api
}

#[tokio::test]
async fn a_refusal_keeps_its_code_and_text() {
    let api = one_answer(
        "HTTP/1.1 409 Conflict\r\ncontent-length: 60\r\nconnection: close\r\n\r\n\
         {\"error\":{\"code\":\"name_taken\",\"text\":\"choose another name\"}}",
    )
    .await;
    let error = Client::new(&api).unwrap().operators().await.unwrap_err();
    assert_eq!(
        (error.fault, error.code.as_str()),
        (Fault::Refused, "name_taken")
    );
    assert_eq!(error.text, "choose another name");
}

#[tokio::test]
async fn something_that_is_no_node_is_called_so() {
    let api =
        one_answer("HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\nconnection: close\r\n\r\nnginx")
            .await;
    let error = Client::new(&api).unwrap().status().await.unwrap_err();
    assert_eq!(
        (error.fault, error.code.as_str()),
        (Fault::Node, "E_NOT_A_NODE")
    );
    let api =
        one_answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").await;
    let error = Client::new(&api).unwrap().status().await.unwrap_err();
    assert_eq!(
        (error.fault, error.code.as_str()),
        (Fault::Node, "E_NOT_A_NODE")
    );
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Client::new(&api).unwrap().status().await.unwrap_err();
    assert_eq!(
        (error.fault, error.code.as_str()),
        (Fault::Unreachable, "E_UNREACHABLE")
    );
}

#[test]
fn a_wrong_url_is_usage() {
    for wrong in ["", "node", "https://node", "ftp://node"] {
        let error = Client::new(wrong).unwrap_err();
        assert_eq!(
            (error.fault, error.code.as_str()),
            (Fault::Usage, "E_API_URL"),
            "{wrong}"
        );
    }
}

#[test]
fn a_name_cannot_leave_its_place_in_the_path() {
    assert_eq!(vm_path("a/../b", "c?d", ""), "/v1/vms/a____b/c_d");
}

#[test]
fn events_are_cut_from_any_chunking() {
    let text = "id: 7\nevent: commit\ndata: {\"a\":\ndata: 1}\n\n: comment\n\nid: 9\n\nevent: x\r\ndata: y\r\n\r\n";
    let expected = [
        SentEvent {
            kind: "commit".into(),
            id: Some(7),
            data: "{\"a\":\n1}".into(),
        },
        SentEvent {
            kind: String::new(),
            id: Some(9),
            data: String::new(),
        },
        SentEvent {
            kind: "x".into(),
            id: None,
            data: "y".into(),
        },
    ];
    for chunk in [1, 3, 1000] {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for bytes in text.as_bytes().chunks(chunk) {
            assert!(parser.push(bytes));
            events.extend(std::iter::from_fn(|| parser.next_event()));
        }
        assert_eq!(events, expected, "chunks of {chunk}");
    }
}

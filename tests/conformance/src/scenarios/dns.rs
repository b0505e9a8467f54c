//! DNS over both transports.

use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;

use crate::{Subject, eventually};

fn query(name: &str, kind: RecordType) -> Message {
    let mut labels = Name::root();
    for label in name.split('.') {
        labels = labels.append_label(label.as_bytes()).unwrap();
    }
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(labels, kind));
    query
}

async fn udp(subject: &Subject, query: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(subject.dns).await.unwrap();
    socket.send(&query.to_vec().unwrap()).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let received = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await;
    let length = received.expect("an answer in time").unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn tcp(subject: &Subject, query: &Message) -> Message {
    let mut stream = meshx_rt::net::dial(subject.dns, Duration::from_secs(5)).await.unwrap();
    let bytes = query.to_vec().unwrap();
    let mut framed = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    framed.extend(bytes);
    stream.write_all(&framed).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await.unwrap();
    Message::from_vec(&buffer).unwrap()
}

/// The records of the answer as text.
fn answers(message: &Message) -> Vec<String> {
    let text = |data: &RData| data.to_string();
    let mut all: Vec<String> = message.answers.iter().map(|record| text(&record.data)).collect();
    all.sort();
    all
}

/// Waits until a name has these answers.
async fn says(subject: &Subject, name: &str, kind: RecordType, expected: &[&str]) -> Message {
    eventually(async || {
        let answer = udp(subject, &query(name, kind)).await;
        let have = answers(&answer);
        if have == expected { Ok(answer) } else { Err(format!("{name} {kind}: {have:?}")) }
    })
    .await
}

/// Services by name, tag and RFC 2782 name; nodes; addresses; what is not there.
pub async fn lookups(subject: &Subject) {
    let passing = json!({"TTL": "60s", "Status": "passing"});
    subject
        .register(&json!({
            "Name": "echo", "Port": 19_090, "Address": "127.0.0.1", "Tags": ["v1"], "Check": passing,
            "Connect": {"SidecarService": {"Port": 20_001, "Checks": [passing]}},
        }))
        .await;
    subject
        .register(
            &json!({"Name": "noaddr", "Port": 4_242, "Weights": {"Passing": 10, "Warning": 1}}),
        )
        .await;
    subject.register(&json!({"Name": "sick", "Port": 1, "Check": {"TTL": "60s"}})).await;
    let warning = json!({"TTL": "60s", "Status": "warning"});
    subject
        .register(&json!({"Name": "ill", "Port": 1, "Address": "127.0.0.3", "Check": warning}))
        .await;
    let (a, srv) = (RecordType::A, RecordType::SRV);
    let at_addr = ["1 1 19090 7f000001.addr.dc1.consul."];
    for (name, kind, expected) in [
        ("echo.service.consul", a, &["127.0.0.1"][..]),
        ("ECHO.Service.Consul", a, &["127.0.0.1"]),
        ("echo.service.dc1.consul", srv, &at_addr),
        ("v1.echo.service.consul", srv, &at_addr),
        ("_echo._tcp.service.consul", srv, &at_addr),
        ("_echo._v1.service.consul", srv, &at_addr),
        ("echo.connect.consul", srv, &["1 1 20001 7f000001.addr.dc1.consul."]),
        ("noaddr.service.consul", srv, &["1 10 4242 n1.node.dc1.consul."]),
        ("ill.service.consul", a, &["127.0.0.3"]),
        ("n1.node.consul", a, &["127.0.0.1"]),
        ("7f000001.addr.consul", a, &["127.0.0.1"]),
        ("1.0.0.127.in-addr.arpa", RecordType::PTR, &["n1.node.dc1.consul."]),
    ] {
        let answer = says(subject, name, kind, expected).await;
        assert!(answer.metadata.authoritative && !answer.metadata.recursion_available, "{name}");
        assert!(answer.answers.iter().all(|record| record.ttl == 0), "{name}");
        let over_tcp = tcp(subject, &query(name, kind)).await;
        assert_eq!(answers(&over_tcp), expected, "{name} over TCP");
    }
    for (name, kind, code) in [
        ("sick.service.consul", a, ResponseCode::NXDomain),
        ("nobody.service.consul", a, ResponseCode::NXDomain),
        ("v2.echo.service.consul", a, ResponseCode::NXDomain),
        ("echo.service.dc9.consul", a, ResponseCode::NXDomain),
        ("echo.service.consul", RecordType::AAAA, ResponseCode::NoError),
    ] {
        let answer = udp(subject, &query(name, kind)).await;
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, 0), "{name}");
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA, "{name}");
    }
    let foreign = udp(subject, &query("www.example.com", a)).await;
    assert_eq!(foreign.metadata.response_code, ResponseCode::Refused);
}

/// More instances than a plain answer holds.
pub async fn many(subject: &Subject) {
    for n in 1..=20 {
        let address = format!("127.0.1.{n}");
        subject
            .register(
                &json!({"Name": "many", "ID": format!("m{n}"), "Address": address, "Port": n}),
            )
            .await;
    }
    let question = query("many.service.consul", RecordType::SRV);
    eventually(async || {
        let whole = tcp(subject, &question).await.answers.len();
        if whole == 20 { Ok(()) } else { Err(whole.to_string()) }
    })
    .await;
    let plain = udp(subject, &question).await;
    assert_eq!(plain.answers.len(), 3);
    // Consul does not say that it left some out.
    assert_eq!(plain.metadata.truncation, !subject.is_consul());
    let mut orders = std::collections::HashSet::new();
    for _ in 0..20 {
        orders.insert(udp(subject, &question).await.answers[0].data.to_string());
    }
    assert!(orders.len() > 1, "answers are shuffled");
}

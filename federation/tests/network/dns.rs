//! The resolver, against a name server of the tests' own and the system's names.

use std::{net::SocketAddr, str::FromStr as _};

use hearth_federation::{Dns as _, DnsError, Service, SystemDns};
use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, SOA, SRV},
    },
};
use tokio::net::UdpSocket;

/// A name server that knows a few names, and says of the others that there is nothing or that it has troubles.
async fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        let mut told_of_late = false;
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let query = &question.queries[0];
            let is_late = query.name() == &name("late.example.") && query.query_type() == RecordType::A;
            let answer = if is_late && !std::mem::replace(&mut told_of_late, true) {
                nothing_for_a_day(&question)
            } else {
                answer(&question)
            };
            let _ = socket.send_to(&answer.to_vec().unwrap(), client).await;
        }
    });
    address
}

fn name(text: &str) -> Name {
    Name::from_str(text).unwrap()
}

/// There is no such name, and there will be none until tomorrow.
fn nothing_for_a_day(question: &Message) -> Message {
    const DAY: u32 = 86_400;
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_query(question.queries[0].clone());
    answer.metadata.response_code = ResponseCode::NXDomain;
    let soa = SOA::new(name("ns.example."), name("admin.example."), 1, 7200, 3600, 86_400, DAY);
    answer.add_authority(Record::from_rdata(name("example."), DAY, RData::SOA(soa)));
    answer
}

fn answer(question: &Message) -> Message {
    let query = question.queries[0].clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_query(query.clone());
    let mut add = |owner: &str, data: RData| {
        answer.add_answer(Record::from_rdata(name(owner), 120, data));
    };
    let a = |last| RData::A(A::new(192, 0, 2, last));
    let srv =
        |priority, weight, port, target: &str| RData::SRV(SRV::new(priority, weight, port, name(target)));
    match (query.name().to_string().as_str(), query.query_type()) {
        ("a.example.", RecordType::A) => {
            add("a.example.", a(1));
            add("a.example.", a(2));
        }
        ("a.example.", RecordType::AAAA) => {
            add("a.example.", RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)));
        }
        ("late.example.", RecordType::A) => add("late.example.", a(3)),
        ("long.example.", RecordType::A) => {
            add("long.example.", a(4));
            answer.answers[0].ttl = 7 * 86_400;
        }
        ("alias.example.", RecordType::A) => {
            add("alias.example.", RData::CNAME(CNAME(name("a.example."))));
            add("a.example.", a(1));
        }
        ("_matrix-fed._tcp.a.example.", RecordType::SRV) => {
            add("_matrix-fed._tcp.a.example.", srv(10, 5, 8448, "A.example."));
            add("_matrix-fed._tcp.a.example.", srv(0, 0, 0, "."));
        }
        ("a.example." | "alias.example." | "late.example." | "long.example.", _) => {}
        ("broken.example.", _) => answer.metadata.response_code = ResponseCode::ServFail,
        _ => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer
}

#[tokio::test]
async fn addresses_of_both_families_are_found() {
    let dns = SystemDns::asking(name_server().await).unwrap();
    let found = dns.addresses("a.example").await.unwrap();
    let mut addresses: Vec<_> = found.records.iter().map(ToString::to_string).collect();
    addresses.sort();
    assert_eq!(addresses, ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    assert!(!found.alias);
    assert!((100..=120).contains(&found.ttl.as_secs()), "{:?}", found.ttl);
}

#[tokio::test]
async fn sd_05_an_alias_is_followed_and_known() {
    let dns = SystemDns::asking(name_server().await).unwrap();
    let found = dns.addresses("alias.example").await.unwrap();
    assert!(found.alias);
    assert!(found.records.contains(&"192.0.2.1".parse().unwrap()));
}

#[tokio::test]
async fn services_are_found() {
    let dns = SystemDns::asking(name_server().await).unwrap();
    let mut found = dns.services("_matrix-fed._tcp.a.example").await.unwrap().records;
    found.sort_by_key(|service| service.priority);
    let service =
        |priority, weight, target: &str, port| Service { priority, weight, target: target.to_owned(), port };
    assert_eq!(found, [service(0, 0, ".", 0), service(10, 5, "a.example", 8448)]);
}

#[tokio::test]
async fn nothing_there_is_told_from_nobody_knows() {
    let dns = SystemDns::asking(name_server().await).unwrap();
    assert_eq!(dns.addresses("gone.example").await, Err(DnsError::None));
    assert_eq!(dns.services("_matrix._tcp.gone.example").await, Err(DnsError::None));
    // A name without records of the type.
    assert_eq!(dns.services("a.example").await, Err(DnsError::None));
    assert!(matches!(dns.addresses("broken.example").await, Err(DnsError::Failed(_))));
    assert!(matches!(dns.services("broken.example").await, Err(DnsError::Failed(_))));
    for odd in ["", "a..b", &"a".repeat(300), "é"] {
        assert!(dns.addresses(odd).await.is_err(), "{odd}");
    }
}

#[tokio::test]
async fn that_there_is_nothing_is_not_remembered() {
    let dns = SystemDns::asking(name_server().await).unwrap();
    assert_eq!(dns.addresses("late.example").await, Err(DnsError::None));
    assert_eq!(dns.addresses("late.example").await.unwrap().records.len(), 1);
}

#[tokio::test]
async fn no_record_is_believed_for_more_than_an_hour() {
    let dns = SystemDns::asking(name_server().await).unwrap();
    for _ in 0..2 {
        let ttl = dns.addresses("long.example").await.unwrap().ttl;
        assert!((3_590..=3_600).contains(&ttl.as_secs()), "{ttl:?}");
    }
}

#[tokio::test]
async fn a_configuration_that_changes_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resolv.conf");
    // As it is before the network is there: nobody listens at that address.
    std::fs::write(&file, "nameserver 127.0.0.2\noptions timeout:1 attempts:1\n").unwrap();
    let dns = SystemDns::configured_by(&file, name_server().await.port()).unwrap();
    assert!(matches!(dns.addresses("a.example").await, Err(DnsError::Failed(_))));
    std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
    assert_eq!(dns.addresses("a.example").await.unwrap().records.len(), 3);
    assert_eq!(dns.services("_matrix-fed._tcp.a.example").await.unwrap().records.len(), 2);
    // One that is gone leads to the resolver on this machine, as at the start.
    std::fs::remove_file(&file).unwrap();
    assert_eq!(dns.addresses("a.example").await.unwrap().records.len(), 3);
}

#[tokio::test]
async fn the_systems_own_names_are_known() {
    let found = SystemDns::new().unwrap().addresses("localhost").await.unwrap();
    assert!(found.records.iter().all(std::net::IpAddr::is_loopback));
}

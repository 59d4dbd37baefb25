//! `/relations`.

use super::*;

#[tokio::test]
async fn rl_13_children_are_listed_newest_first_by_type_and_event_type() {
    let (_server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "parent").await;
    let reply = bob.reply(&room, &message, "reply").await;
    let reaction = bob.react(&room, &message, "👍").await;
    let edit = alice.edit(&room, &message, "edited").await;
    let vote = bob.send_event(&room, "org.example.vote", reaction_to(&message, "yes")).await;
    alice.send_text(&room, "unrelated").await;

    let list = async |path: &str| {
        let answer = bob.relations(&room, &format!("{message}{path}")).await;
        assert_eq!(answer["recursion_depth"], Value::Null);
        assert_eq!(answer["next_batch"], Value::Null);
        chunk(&answer).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(list("").await, [&*vote, &edit, &reaction, &reply]);
    assert_eq!(list("?dir=b").await, [&*vote, &edit, &reaction, &reply]);
    assert_eq!(list("?dir=f").await, [&*reply, &reaction, &edit, &vote]);
    assert_eq!(list("/m.annotation").await, [&*vote, &reaction]);
    assert_eq!(list("/m.annotation/m.reaction").await, [&*reaction]);
    assert_eq!(list("/m.thread/m.room.message").await, [&*reply]);
    assert_eq!(list("/m.thread/m.reaction").await, Vec::<String>::new());
    assert_eq!(list("/org.example.own").await, Vec::<String>::new());
    // Older clients know the path by another name.
    let old = bob.get(&format!("/unstable/rooms/{room}/relations/{message}/m.replace")).await.expect(200);
    assert_eq!(chunk(&old), [edit]);
    let event = bob.relations(&room, &message).await["chunk"][3].clone();
    assert_eq!(event["content"]["body"], json!("reply"));
    assert!(event["unsigned"]["age"].is_i64(), "{event}");
}

#[tokio::test]
async fn rl_13_pages_follow_each_other_without_gaps_both_ways() {
    let (_server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "parent").await;
    let mut sent = Vec::new();
    for number in 0..25 {
        sent.push(bob.reply(&room, &message, &number.to_string()).await);
        alice.send_text(&room, "noise").await;
    }
    for (dir, limit) in [("b", 7), ("f", 7), ("b", 5), ("f", 25), ("b", 1)] {
        let mut found: Vec<String> = Vec::new();
        let mut from = String::new();
        let mut pages = 0;
        loop {
            let path = format!("{message}/m.thread?dir={dir}&limit={limit}{from}");
            let page = bob.relations(&room, &path).await;
            assert!(chunk(&page).len() <= limit);
            assert_eq!(page["prev_batch"].is_null(), from.is_empty());
            found.extend(chunk(&page).into_iter().map(str::to_owned));
            pages += 1;
            match page["next_batch"].as_str() {
                Some(next) => from = format!("&from={next}"),
                None => break,
            }
        }
        if dir == "b" {
            found.reverse();
        }
        assert_eq!(found, sent, "{dir} {limit}");
        assert_eq!(pages, 25_usize.div_ceil(limit), "{dir} {limit}: no empty page at the end");
    }
    // Tokens of other endpoints do too.
    let around = bob.get(&format!("/v3/rooms/{room}/context/{}?limit=0", sent[9])).await.expect(200);
    let (start, end) = (around["start"].as_str().expect("start"), around["end"].as_str().expect("end"));
    let older = bob.relations(&room, &format!("{message}?from={start}&limit=2")).await;
    assert_eq!(chunk(&older), [&sent[8], &sent[7]]);
    let newer = bob.relations(&room, &format!("{message}?dir=f&from={end}&limit=2")).await;
    assert_eq!(chunk(&newer), [&sent[10], &sent[11]]);
    let to = bob.relations(&room, &format!("{message}?to={end}")).await;
    assert_eq!(chunk(&to).len(), 15);
    let sync = bob.sync(None, 0).await;
    let since = sync["next_batch"].as_str().expect("a token");
    assert_eq!(chunk(&bob.relations(&room, &format!("{message}?from={since}&limit=1")).await), [&sent[24]]);
}

#[tokio::test]
async fn rl_13_relations_of_relations_are_listed_three_levels_deep() {
    let (_server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "parent").await;
    let reply = bob.reply(&room, &message, "level one").await;
    let edit = bob.edit(&room, &reply, "level two").await;
    let reaction = alice.react(&room, &reply, "two").await;
    let deep = alice.refer(&room, &edit).await;
    let deeper = alice.refer(&room, &deep).await;

    let all = bob.relations(&room, &format!("{message}?recurse=true")).await;
    assert_eq!(chunk(&all), [&*deep, &reaction, &edit, &reply]);
    assert_eq!(all["recursion_depth"], json!(3));
    let old = bob.relations(&room, &format!("{message}?org.matrix.msc3981.recurse=true&dir=f")).await;
    assert_eq!(chunk(&old), [&*reply, &edit, &reaction, &deep]);
    assert_eq!(chunk(&bob.relations(&room, &format!("{message}?recurse=false")).await), [&*reply]);
    assert_eq!(
        chunk(&bob.relations(&room, &format!("{reply}?recurse=true")).await),
        [&*deeper, &deep, &reaction, &edit]
    );
    // Filters hold on every level: nothing is found behind what they leave out.
    let threads = bob.relations(&room, &format!("{message}/m.thread?recurse=true")).await;
    assert_eq!(chunk(&threads), [&*reply]);
    let edits = bob.relations(&room, &format!("{reply}/m.replace/m.room.message?recurse=true")).await;
    assert_eq!(chunk(&edits), [&*edit]);
    // Pages.
    let first = bob.relations(&room, &format!("{message}?recurse=true&limit=3")).await;
    assert_eq!(chunk(&first), [&*deep, &reaction, &edit]);
    let next = first["next_batch"].as_str().expect("there is one more");
    let second = bob.relations(&room, &format!("{message}?recurse=true&limit=3&from={next}")).await;
    assert_eq!(chunk(&second), [&*reply]);
    assert_eq!(second["next_batch"], Value::Null);
}

#[tokio::test]
async fn bad_questions_get_matrix_errors() {
    let (_server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "parent").await;
    bob.reply(&room, &message, "reply").await;
    for query in ["from=x", "to=x", "dir=sideways", "limit=-1", "limit=many", "recurse=perhaps"] {
        let answer = bob.get(&format!("/v1/rooms/{room}/relations/{message}?{query}")).await;
        answer.expect_error(400, "M_INVALID_PARAM");
    }
    for query in ["from=x", "limit=-1", "limit=0", "limit=many", "include=some"] {
        let answer = bob.get(&format!("/v1/rooms/{room}/threads?{query}")).await;
        answer.expect_error(400, "M_INVALID_PARAM");
    }
    for path in [format!("/v1/rooms/{room}/relations/none"), format!("/v1/rooms/none/relations/{message}")] {
        bob.get(&path).await.expect_error(400, "M_INVALID_PARAM");
    }
    let long = "x".repeat(5000);
    assert_eq!(bob.relations(&room, &format!("{message}/{long}/{long}")).await["chunk"], json!([]));
    let all = bob.relations(&room, &format!("{message}?limit=99999999&from=&to=")).await;
    assert_eq!(chunk(&all).len(), 1);
    assert_eq!(chunk(&bob.relations(&room, &format!("{message}?limit=0")).await).len(), 1);
}

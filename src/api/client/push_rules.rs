//! Push rules ("Push Rules API").

use ruma::{
    api::client::push::{
        PushRule, delete_pushrule::v3 as delete, get_pushrule::v3 as get,
        get_pushrule_actions::v3 as get_actions, get_pushrule_enabled::v3 as get_enabled,
        get_pushrules_all::v3 as all, get_pushrules_global_scope::v3 as global, set_pushrule::v3 as set,
        set_pushrule_actions::v3 as set_actions, set_pushrule_enabled::v3 as set_enabled,
    },
    push::{AnyPushRuleRef, RuleKind},
};
use serde_json::Value;

use crate::{
    account::{RuleChange, Session},
    app::App,
    http::{Json, MatrixError, Routes},
};

pub fn routes() -> Routes {
    Routes::default()
        .add(list_all)
        .add(list_global)
        .add(get)
        .add(get_enabled)
        .add(get_actions)
        .add(set)
        .add(set_enabled)
        .add(set_actions)
        .add(delete)
}

async fn list_all(app: App, session: Session, _: all::Request) -> Result<Json<Value>, MatrixError> {
    Ok(Json(app.accounts.push_rules_content(session.recipient, &session.user_id).await?))
}

async fn list_global(app: App, session: Session, _: global::Request) -> Result<Json<Value>, MatrixError> {
    let mut content = app.accounts.push_rules_content(session.recipient, &session.user_id).await?;
    Ok(Json(content["global"].take()))
}

/// The kind that MSC4306 adds is listed under this name, so it is asked for by it too.
fn known(kind: RuleKind) -> RuleKind {
    if kind.as_str() == "postcontent" { RuleKind::PostContent } else { kind }
}

async fn find(app: &App, session: &Session, kind: RuleKind, rule_id: &str) -> Result<PushRule, MatrixError> {
    let rules = app.accounts.push_rules(session.recipient, &session.user_id).await?;
    let rule = rules.get(known(kind), rule_id).map(|rule| match rule {
        // ruma panics for this kind; the two look alike.
        AnyPushRuleRef::PostContent(rule) => AnyPushRuleRef::Underride(rule),
        rule => rule,
    });
    rule.map(PushRule::from).ok_or_else(|| MatrixError::not_found("there is no such push rule"))
}

async fn change(app: &App, session: &Session, change: RuleChange) -> Result<(), MatrixError> {
    Ok(app.accounts.change_push_rules(session.recipient, &session.user_id, change).await?)
}

async fn get(app: App, session: Session, request: get::Request) -> Result<get::Response, MatrixError> {
    find(&app, &session, request.kind, &request.rule_id).await.map(get::Response::new)
}

async fn get_enabled(
    app: App,
    session: Session,
    request: get_enabled::Request,
) -> Result<get_enabled::Response, MatrixError> {
    let rule = find(&app, &session, request.kind, &request.rule_id).await?;
    Ok(get_enabled::Response::new(rule.enabled))
}

async fn get_actions(
    app: App,
    session: Session,
    request: get_actions::Request,
) -> Result<get_actions::Response, MatrixError> {
    let rule = find(&app, &session, request.kind, &request.rule_id).await?;
    Ok(get_actions::Response::new(rule.actions))
}

async fn set(app: App, session: Session, request: set::Request) -> Result<set::Response, MatrixError> {
    let put = RuleChange::Put { rule: request.rule, after: request.after, before: request.before };
    change(&app, &session, put).await?;
    Ok(set::Response::new())
}

async fn set_enabled(
    app: App,
    session: Session,
    request: set_enabled::Request,
) -> Result<set_enabled::Response, MatrixError> {
    let set_enabled::Request { kind, rule_id, enabled, .. } = request;
    change(&app, &session, RuleChange::Enable { kind: known(kind), rule_id, enabled }).await?;
    Ok(set_enabled::Response::new())
}

async fn set_actions(
    app: App,
    session: Session,
    request: set_actions::Request,
) -> Result<set_actions::Response, MatrixError> {
    let set_actions::Request { kind, rule_id, actions, .. } = request;
    change(&app, &session, RuleChange::Actions { kind: known(kind), rule_id, actions }).await?;
    Ok(set_actions::Response::new())
}

async fn delete(
    app: App,
    session: Session,
    request: delete::Request,
) -> Result<delete::Response, MatrixError> {
    let delete::Request { kind, rule_id, .. } = request;
    change(&app, &session, RuleChange::Delete { kind: known(kind), rule_id }).await?;
    Ok(delete::Response::new())
}

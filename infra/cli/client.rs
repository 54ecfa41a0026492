//! The dispatcher's API from the command line: reviews and dead letters.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::time::Instant;

use crate::args::{DeadLetters, Reviews, Which};
use crate::fleet::Address;

/// The API with the operator's token.
pub(crate) struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    pub(crate) fn of(fleet: &Which) -> anyhow::Result<Self> {
        let (address, tokens) = Address::load(&fleet.dir)?;
        let token = tokens.get("operator").context("tokens.json holds no operator token")?.clone();
        Ok(Self::new(&address.api, &token))
    }

    pub(crate) fn new(base: &str, token: &str) -> Self {
        Self { http: reqwest::Client::new(), base: base.to_owned(), token: token.to_owned() }
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let request = self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token);
        let answer = request.send().await.with_context(|| format!("ask {}; is the fleet up?", self.base))?;
        let status = answer.status();
        let body: Value = answer.json().await.with_context(|| format!("GET {path}: the answer is no JSON"))?;
        if !status.is_success() {
            bail!("GET {path}: {status}: {}", body["error"].as_str().unwrap_or("no reason given"));
        }
        Ok(body)
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("-")
}

fn show(value: &Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

pub(crate) async fn reviews(command: Reviews) -> anyhow::Result<()> {
    match command {
        Reviews::List { tenant, fleet } => {
            let page = Api::of(&fleet)?.get(&format!("/v1/tenants/{tenant}/reviews")).await?;
            if fleet.json {
                return show(&page);
            }
            for review in page["reviews"].as_array().into_iter().flatten() {
                let (id, state, opened) = (text(review, "review"), text(review, "status"), text(review, "opened_at"));
                println!("{id}  {state:<14} {opened}  {} file(s)  {}", review["files"], text(review, "pack"));
            }
            Ok(())
        }
        Reviews::Show { tenant, review, fleet } => {
            show(&Api::of(&fleet)?.get(&format!("/v1/tenants/{tenant}/reviews/{review}")).await?)
        }
        Reviews::Wait { tenant, review, timeout, fleet } => {
            let (api, deadline) = (Api::of(&fleet)?, Instant::now() + Duration::from_secs(timeout));
            loop {
                let found = api.get(&format!("/v1/tenants/{tenant}/reviews/{review}")).await?;
                if text(&found["state"], "kind") == "settled" {
                    if fleet.json {
                        return show(&found);
                    }
                    println!("{}", text(&found, "status"));
                    return Ok(());
                }
                if Instant::now() > deadline {
                    bail!("review {review} is still {} after {timeout} s", text(&found, "status"));
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

pub(crate) async fn dead_letters(command: DeadLetters) -> anyhow::Result<()> {
    let path =
        |tenant: Option<String>| tenant.map_or("/v1/dead-letters".into(), |t| format!("/v1/tenants/{t}/dead-letters"));
    match command {
        DeadLetters::List { tenant, fleet } => {
            let page = Api::of(&fleet)?.get(&path(tenant)).await?;
            if fleet.json {
                return show(&page);
            }
            for letter in page["dead_letters"].as_array().into_iter().flatten() {
                let (id, class, filed) = (text(letter, "id"), text(letter, "class"), text(letter, "filed_at"));
                println!("{id}  {class:<14} {filed}  {}", text(letter, "reason"));
            }
            Ok(())
        }
        DeadLetters::Show { letter, tenant, fleet } => {
            show(&Api::of(&fleet)?.get(&format!("{}/{letter}", path(tenant))).await?)
        }
    }
}

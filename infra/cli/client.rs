//! The dispatcher's API from the command line: reviews and dead letters.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::args::{DeadLetters, Reviews, Which};
use crate::fleet::Address;
use crate::shown::shown;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The API with the operator's token.
#[derive(Debug)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    /// That of the fleet in a directory.
    pub(crate) fn of(fleet: &Which) -> anyhow::Result<Self> {
        let (address, tokens) = Address::load(&fleet.dir)?;
        let token = tokens.get("operator").context("tokens.json holds no operator token")?.clone();
        Self::new(&address.api, &token)
    }

    /// Speaks to `base` as whoever holds `token`; loopback needs no proxy.
    pub fn new(base: &str, token: &str) -> anyhow::Result<Self> {
        carrel_cloud::install_crypto();
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN).build()?;
        Ok(Self { http, base: base.to_owned(), token: token.to_owned() })
    }

    /// A tenant's reviews, newest first.
    pub async fn reviews(&self, tenant: &str) -> anyhow::Result<Vec<Listed>> {
        let mut page = self.get(&format!("/v1/tenants/{tenant}/reviews")).await?;
        serde_json::from_value(page["reviews"].take()).context("read the list of reviews")
    }

    /// The JSON at a path.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
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

/// One line of a list of reviews.
#[derive(Debug, Clone, Deserialize)]
pub struct Listed {
    /// Which.
    #[serde(rename = "review")]
    pub id: String,
    /// The pack it reviews.
    pub pack: String,
    /// Where it stands, in a word or two.
    pub status: String,
    /// When it was sealed.
    pub opened_at: String,
    /// Its files.
    pub files: usize,
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
            if fleet.json {
                return show(&Api::of(&fleet)?.get(&format!("/v1/tenants/{tenant}/reviews")).await?);
            }
            for Listed { id, pack, status, opened_at, files } in Api::of(&fleet)?.reviews(&tenant).await? {
                println!("{id}  {status:<14} {opened_at}  {files} file(s)  {}", shown(&pack));
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
                    let status = text(&found, "status");
                    if fleet.json {
                        show(&found)?;
                    } else {
                        println!("{status}");
                    }
                    if status != "delivered" {
                        bail!("review {review} is {status}; see: carrel reviews show {tenant} {review}");
                    }
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
                println!("{id}  {class:<14} {filed}  {}", shown(text(letter, "reason")));
            }
            Ok(())
        }
        DeadLetters::Show { letter, tenant, fleet } => {
            show(&Api::of(&fleet)?.get(&format!("{}/{letter}", path(tenant))).await?)
        }
    }
}

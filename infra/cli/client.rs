//! The dispatcher's API from the command line, and reviews.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::args::{Reviews, Which};
use crate::fleet::Address;
use crate::shown::shown;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const LOOKED_THROUGH_WITHIN: Duration = Duration::from_secs(300);

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
        let mut all: Vec<Listed> =
            serde_json::from_value(self.records(tenant).await?).context("read the list of reviews")?;
        all.sort_by(|a, b| b.opened_at.cmp(&a.opened_at).then_with(|| a.id.cmp(&b.id)));
        Ok(all)
    }

    /// A tenant's reviews as the API tells them, in order of ids.
    async fn records(&self, tenant: &str) -> anyhow::Result<Value> {
        self.all(&format!("/v1/tenants/{tenant}/reviews"), "reviews").await
    }

    /// What a list holds in this field, leafed to the end.
    pub(crate) async fn all(&self, path: &str, field: &str) -> anyhow::Result<Value> {
        let (mut all, mut page) = (Vec::new(), None);
        loop {
            let mut answer = self.find(path, &page.map(|page| ("page", page)).into_iter().collect::<Vec<_>>()).await?;
            match answer[field].take() {
                Value::Array(some) => all.extend(some),
                other => bail!("read the list of {field}: {other} is none"),
            }
            match answer["next"].take() {
                Value::String(next) => page = Some(next),
                _ => return Ok(all.into()),
            }
        }
    }

    /// The JSON at a path.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.ask("GET", path, self.http.get(format!("{}{path}", self.base))).await
    }

    /// The JSON at a path; `None` where there is no such thing.
    pub(crate) async fn look(&self, path: &str) -> anyhow::Result<Option<Value>> {
        match self.answer("GET", path, self.http.get(format!("{}{path}", self.base))).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => taken("GET", path, status, body).map(Some),
        }
    }

    /// The JSON at a path, with these fields as its query; the fleet may look through many letters for it.
    pub(crate) async fn find(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        let request = self.http.get(format!("{}{path}", self.base)).timeout(LOOKED_THROUGH_WITHIN);
        self.ask("GET", path, request.query(query)).await
    }

    /// What comes of a body sent to a path. The same key asks for the same thing; what the fleet looks through may be
    /// many letters.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}{path}", self.base)).timeout(LOOKED_THROUGH_WITHIN);
        self.ask("POST", path, request.header("idempotency-key", key).json(body)).await
    }

    async fn ask(&self, verb: &str, path: &str, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let (status, body) = self.answer(verb, path, request).await?;
        taken(verb, path, status, body)
    }

    async fn answer(
        &self,
        verb: &str,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let answer = request.bearer_auth(&self.token).send().await;
        let answer = answer.with_context(|| format!("ask {}; is the fleet up?", self.base))?;
        let status = answer.status();
        let body: Value = answer.json().await.with_context(|| format!("{verb} {path}: the answer is no JSON"))?;
        Ok((status, body))
    }
}

/// The body, unless the call was refused.
fn taken(verb: &str, path: &str, status: StatusCode, body: Value) -> anyhow::Result<Value> {
    if !status.is_success() {
        bail!("{verb} {path}: {status}: {}", body["error"].as_str().unwrap_or("no reason given"));
    }
    Ok(body)
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

pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("-")
}

pub(crate) fn show(value: &Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

pub(crate) async fn reviews(command: Reviews) -> anyhow::Result<()> {
    match command {
        Reviews::List { tenant, fleet } => {
            if fleet.json {
                return show(&serde_json::json!({ "reviews": Api::of(&fleet)?.records(&tenant).await? }));
            }
            for Listed { id, pack, status, opened_at, files } in Api::of(&fleet)?.reviews(&tenant).await? {
                println!("{id}  {status:<14} {opened_at}  {files} file(s)  {}", shown(&pack));
            }
            Ok(())
        }
        Reviews::Show { tenant, review, fleet } => {
            show(&Api::of(&fleet)?.get(&format!("/v1/tenants/{tenant}/reviews/{review}")).await?)
        }
        Reviews::Explain { what, fleet } => {
            let answer = Api::of(&fleet)?.find("/v1/explain", &[("what", what)]).await?;
            if fleet.json {
                return show(&answer);
            }
            for sentence in answer["told"].as_array().into_iter().flatten() {
                println!("{}", shown(sentence.as_str().unwrap_or_default()));
            }
            Ok(())
        }
        Reviews::Cancel { tenant, review, reason, fleet } => {
            let path = format!("/v1/tenants/{tenant}/reviews/{review}/cancel");
            let answer = Api::of(&fleet)?.post(&path, &review, &serde_json::json!({ "reason": reason })).await?;
            if fleet.json {
                return show(&answer);
            }
            println!("{review}  cancelled");
            Ok(())
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

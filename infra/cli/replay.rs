//! Dead letters and campaigns from the command line.

use std::time::{Duration, SystemTime};

use carrel_schemas::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::args::{Campaigns, DeadLetters, Letters, Looked, Which};
use crate::client::{Api, show, text};
use crate::shown::shown;

/// Letters of one page of an export.
const PAGE: usize = 500;

impl Letters {
    /// As the fields of a filter.
    fn fields(self) -> Vec<(&'static str, String)> {
        let ago = |age: Duration| {
            Timestamp::from(SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
        };
        let fields = [
            ("tenant", self.tenant),
            ("class", self.class),
            ("fingerprint", self.fingerprint),
            ("text", self.text),
            ("before", self.older_than.map(ago)),
            ("after", self.newer_than.map(ago)),
        ];
        fields.into_iter().filter_map(|(field, value)| Some((field, value?))).collect()
    }
}

impl Looked {
    fn fields(self) -> Vec<(&'static str, String)> {
        self.letters.fields().into_iter().chain(self.state.map(|state| ("state", state))).collect()
    }
}

pub(crate) async fn dead_letters(command: DeadLetters) -> anyhow::Result<()> {
    match command {
        DeadLetters::Stats { letters, fleet } => {
            let found = Api::of(&fleet)?.find("/v1/dead-letters/stats", &letters.fields()).await?;
            if fleet.json {
                return show(&found);
            }
            for group in found["groups"].as_array().into_iter().flatten() {
                let (tenant, class, state) = (text(group, "tenant"), text(group, "class"), text(group, "state"));
                let (count, newest) = (&group["letters"], text(group, "newest"));
                println!(
                    "{count:>6}  {state:<10} {tenant}  {class:<14} {newest}  {}",
                    shown(text(group, "fingerprint"))
                );
            }
            Ok(())
        }
        DeadLetters::List { letters, limit, page, fleet } => {
            let mut query = letters.fields();
            query.push(("limit", limit.to_string()));
            query.extend(page.map(|page| ("page", page)));
            let found = Api::of(&fleet)?.find("/v1/dead-letters", &query).await?;
            if fleet.json {
                return show(&found);
            }
            for letter in found["dead_letters"].as_array().into_iter().flatten() {
                let (id, class, filed) = (text(letter, "id"), text(letter, "class"), text(letter, "filed_at"));
                let (state, tenant) = (text(letter, "state"), text(letter, "tenant"));
                println!("{id}  {state:<10} {tenant}  {class:<14} {filed}  {}", shown(text(letter, "reason")));
            }
            if let Some(next) = found["next"].as_str() {
                eprintln!("more follow: --page {next}");
            }
            Ok(())
        }
        DeadLetters::Show { letter, fleet } => {
            show(&Api::of(&fleet)?.get(&format!("/v1/dead-letters/{letter}")).await?)
        }
        DeadLetters::Replay { letter, letters, all, dry_run, canary, per_minute, key, fleet } => {
            let filter: serde_json::Map<String, Value> =
                letters.fields().into_iter().map(|(field, value)| (field.to_owned(), value.into())).collect();
            let wish = json!({
                "filter": filter, "letters": letter, "all": all, "canary": canary, "per_minute": per_minute, "dry_run": dry_run,
            });
            let key = key.unwrap_or_else(|| format!("cli-{:032x}", rand::random::<u128>()));
            let answer = Api::of(&fleet)?.post("/v1/campaigns", &key, &wish).await?;
            if fleet.json {
                return show(&answer);
            }
            if dry_run {
                forecast(&answer);
            } else {
                let id = text(&answer, "id");
                println!("{id}  {} letter(s); see: carrel campaigns show {id}", answer["letters"]);
            }
            Ok(())
        }
        DeadLetters::Discard { letter, reason, fleet } => {
            let path = format!("/v1/dead-letters/{letter}/discard");
            let answer = Api::of(&fleet)?.post(&path, &letter, &json!({ "reason": reason })).await?;
            said(&answer, &fleet)
        }
        DeadLetters::Export { letters, fleet } => {
            let api = Api::of(&fleet)?;
            let mut query = letters.fields();
            query.push(("limit", PAGE.to_string()));
            let mut page: Option<String> = None;
            loop {
                let wanted: Vec<_> = query.iter().cloned().chain(page.map(|page| ("page", page))).collect();
                let found = api.find("/v1/dead-letters", &wanted).await?;
                for letter in found["dead_letters"].as_array().into_iter().flatten() {
                    // What was removed since it was listed is left out.
                    if let Some(whole) = api.look(&format!("/v1/dead-letters/{}", text(letter, "id"))).await? {
                        println!("{whole}");
                    }
                }
                let Some(next) = found["next"].as_str() else { return Ok(()) };
                page = Some(next.to_owned());
            }
        }
    }
}

fn forecast(answer: &Value) {
    for letter in answer["letters"].as_array().into_iter().flatten() {
        let why = shown(letter["why"].as_str().unwrap_or_default());
        println!("{}  {:<16} {why}", text(letter, "letter"), text(letter, "foresight"));
    }
    for (foresight, count) in answer["counts"].as_object().into_iter().flatten() {
        println!("{count:>6}  {foresight}");
    }
    match answer["seconds"].as_u64() {
        Some(seconds) => println!("it should take about {seconds} s"),
        None => println!("how long it takes is not known: none of these reviews was measured"),
    }
}

fn said(answer: &Value, fleet: &Which) -> anyhow::Result<()> {
    if fleet.json {
        return show(answer);
    }
    println!("{}  {}", text(answer, "id"), text(answer, "state"));
    Ok(())
}

pub(crate) async fn campaigns(command: Campaigns) -> anyhow::Result<()> {
    let (campaign, wish, fleet) = match command {
        Campaigns::List { fleet } => {
            let found = Api::of(&fleet)?.all("/v1/campaigns", "campaigns").await?;
            if fleet.json {
                return show(&json!({ "campaigns": found }));
            }
            for campaign in found.as_array().into_iter().flatten() {
                let (id, state, created) =
                    (text(campaign, "id"), text(campaign, "state"), text(campaign, "created_at"));
                let reason = shown(campaign["reason"].as_str().unwrap_or_default());
                println!("{id}  {state:<10} {created}  {} letter(s)  {reason}", campaign["letters"]);
            }
            return Ok(());
        }
        Campaigns::Show { campaign, fleet } => {
            let api = Api::of(&fleet)?;
            let mut found = api.get(&format!("/v1/campaigns/{campaign}")).await?;
            let letters = api.get(&format!("/v1/campaigns/{campaign}/letters")).await?;
            if fleet.json {
                found["items"] = letters["letters"].clone();
                return show(&found);
            }
            println!(
                "{}  {}  {}",
                text(&found, "id"),
                text(&found, "state"),
                shown(found["reason"].as_str().unwrap_or_default())
            );
            for letter in letters["letters"].as_array().into_iter().flatten() {
                let reason = shown(letter["state"]["reason"].as_str().unwrap_or_default());
                println!("{}  {:<8} {reason}", text(letter, "letter"), text(&letter["state"], "kind"));
            }
            for (state, count) in found["counts"].as_object().into_iter().flatten() {
                println!("{count:>6}  {state}");
            }
            return Ok(());
        }
        Campaigns::Pause { campaign, fleet } => (campaign, "pause", fleet),
        Campaigns::Resume { campaign, fleet } => (campaign, "resume", fleet),
        Campaigns::Cancel { campaign, fleet } => (campaign, "cancel", fleet),
    };
    let answer = Api::of(&fleet)?.post(&format!("/v1/campaigns/{campaign}/{wish}"), &campaign, &json!({})).await?;
    said(&answer, &fleet)
}

//! The first thing a newcomer sees: two tenants, a pack each, and decks on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use carrel_cloud::Objects;
use carrel_local::config::Isolation;
use carrel_samples::SamplePack;
use carrel_schemas::completion::Completion;
use carrel_schemas::outcome::Verdict;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::client::Api;
use crate::fleet::{Fleet, Setup};
use crate::interrupt::Interrupt;
use crate::rooms;
use crate::shown::shown;
use crate::upload;

const ARRIVE_WITHIN: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// One review that arrived, its files on disk.
struct Arrived {
    completion: Completion,
    seconds: f64,
    files: Vec<PathBuf>,
}

pub(crate) async fn run(
    dir: Option<PathBuf>,
    isolation: Isolation,
    as_json: bool,
    interrupt: &mut Interrupt,
) -> anyhow::Result<()> {
    let dir = match dir {
        Some(dir) => dir,
        None => std::env::temp_dir().join(format!("carrel-demo-{}", hex::encode(rand::random::<[u8; 4]>()))),
    };
    let packs = carrel_samples::packs();
    let samples = packs.iter().map(|pack| pack.tenant.to_owned()).collect();
    let mut setup = Setup { samples, isolation, ..Setup::here(dir)? };
    eprintln!("{}", rooms::check(&mut setup).await?);
    let mut fleet = Fleet::prepare(setup)?;
    let done = tokio::select! {
        done = review(&mut fleet, packs) => done,
        signal = interrupt.received() => Err(anyhow!("stopped by {signal}")),
    };
    let stopped = fleet.stop();
    let (logs, tasks) = (fleet.dir().join("logs"), fleet.dir().join("cloud/logs"));
    let arrived = done.with_context(|| {
        format!("the demo did not finish; read the logs in {} and {}", logs.display(), tasks.display())
    })?;
    stopped?;
    if as_json {
        print_json(&arrived)?
    } else {
        print_text(&arrived)
    }
    match arrived.iter().find(|review| !matches!(review.completion.verdict, Verdict::Delivered { .. })) {
        None => Ok(()),
        Some(review) => {
            let Completion { tenant, verdict, .. } = &review.completion;
            bail!("tenant {tenant}: the review was {}; read the logs in {}", verdict.state(), tasks.display())
        }
    }
}

/// Starts the fleet, uploads the packs and waits for their completion events.
async fn review(fleet: &mut Fleet, packs: Vec<SamplePack>) -> anyhow::Result<Vec<Arrived>> {
    let begun = Instant::now();
    fleet.start().await?;
    eprintln!("fleet up after {:.1} s in {}", begun.elapsed().as_secs_f64(), fleet.dir().display());
    let tenants: Vec<String> = packs.iter().map(|pack| pack.tenant.to_owned()).collect();
    match tokio::time::timeout(ARRIVE_WITHIN, watch(fleet, packs)).await {
        Ok(arrived) => arrived,
        Err(_) => {
            bail!("no completion within {} s for every pack of {}", ARRIVE_WITHIN.as_secs(), tenants.join(", "))
        }
    }
}

async fn watch(fleet: &mut Fleet, packs: Vec<SamplePack>) -> anyhow::Result<Vec<Arrived>> {
    let connector = fleet.address().connector();
    let objects = connector.objects().await?;
    let name = format!("projects/{}/subscriptions/completions-cli", crate::plan::PROJECT);
    let subscription = connector.subscription(&name, 100).await?;
    let mut messages = subscription.open();
    let api = Api::new(&fleet.address().api, fleet.tokens().get("operator").context("no operator token")?)?;
    let mut lines = Lines::new();
    let begun = Instant::now();
    let mut waiting: BTreeMap<String, String> = BTreeMap::new();
    let mut former: BTreeSet<String> = BTreeSet::new();
    for pack in packs {
        // A directory used before still holds its completions; they are not this upload's.
        former.extend(api.reviews(pack.tenant).await?.into_iter().map(|review| review.id));
        let files = pack.files.into_iter().map(|file| (file.name.to_owned(), Bytes::from(file.bytes))).collect();
        upload::pack(&objects, &format!("{}-uploads", pack.tenant), pack.pack, files).await?;
        waiting.insert(pack.tenant.to_owned(), pack.pack.to_owned());
        lines.set(pack.tenant, "uploaded", begun.elapsed());
    }
    let mut arrived: Vec<Arrived> = Vec::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    while !waiting.is_empty() {
        tokio::select! {
            message = messages.next() => {
                let delivery = message.context("the stream of completions ended")??;
                let completion: Completion = serde_json::from_slice(&delivery.data).context("read a completion event")?;
                delivery.receipt.ack();
                let tenant = completion.tenant.to_string();
                let awaited = waiting.get(&tenant).is_some_and(|pack| pack == completion.pack.as_str());
                if awaited && !former.contains(completion.review.as_str()) {
                    waiting.remove(&tenant);
                    lines.set(&tenant, completion.verdict.state(), begun.elapsed());
                    let to = fleet.dir().join("reviews").join(&tenant).join(completion.pack.as_str());
                    let files = fetch(&objects, &completion, &to).await?;
                    arrived.push(Arrived { completion, seconds: begun.elapsed().as_secs_f64(), files });
                }
            }
            _ = look.tick() => {
                fleet.check()?;
                for tenant in waiting.keys() {
                    lines.set(tenant, &stage(&api, &objects, tenant, &former).await, begun.elapsed());
                }
            }
        }
    }
    lines.finish();
    arrived.sort_by(|a, b| a.completion.tenant.cmp(&b.completion.tenant));
    Ok(arrived)
}

/// In a word or two, where a tenant's newest review stands; a hint for people, so failures only lose the hint.
async fn stage(api: &Api, objects: &Objects, tenant: &str, former: &BTreeSet<String>) -> String {
    let found = api.reviews(tenant).await.unwrap_or_default();
    let Some(review) = found.into_iter().find(|review| !former.contains(&review.id)) else { return "uploaded".into() };
    let bucket = format!("{tenant}-outputs");
    let progress = async {
        let found = objects.list(&bucket, &format!("progress/{}/", review.id)).await.ok()?;
        let body = objects.get(&bucket, &found.last()?.name, 64 << 10).await.ok()??;
        serde_json::from_slice::<Progress>(&body.bytes).ok()
    };
    progress.await.map_or(review.status, |progress| progress.stage)
}

/// The part of a worker's progress that is shown.
#[derive(Deserialize)]
struct Progress {
    stage: String,
}

async fn fetch(objects: &Objects, completion: &Completion, to: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Verdict::Delivered { files, .. } = &completion.verdict else { return Ok(Vec::new()) };
    std::fs::create_dir_all(to)?;
    let mut paths = Vec::new();
    for file in files {
        // The name comes from the tenant's outputs: plain components, or it could lead out of the directory.
        let name = Path::new(&file.name);
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            bail!("review {}: the delivered name {:?} is no plain file name", completion.review, file.name);
        }
        let path = to.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(to))?;
        let bucket = completion.outputs_bucket.as_str();
        let done = objects.download(bucket, file.object.as_str(), file.generation.get(), &path, file.size).await?;
        if done.crc32c != file.crc32c {
            bail!("{} is not what was delivered: its checksum differs", path.display());
        }
        paths.push(path);
    }
    Ok(paths)
}

fn print_text(arrived: &[Arrived]) {
    for review in arrived {
        let completion = &review.completion;
        println!(
            "\n{} · pack {} · {} in {:.1} s",
            completion.tenant,
            completion.pack,
            completion.verdict.state(),
            review.seconds
        );
        match &completion.verdict {
            Verdict::Delivered { top_findings, .. } => {
                for finding in top_findings.iter().take(5) {
                    println!("  • {}", shown(&finding.title));
                }
            }
            Verdict::Refused { reason } => println!("  {}", shown(reason)),
            Verdict::Failed { message, .. } => println!("  {}", shown(message)),
            Verdict::InputsChanged { .. } | Verdict::Cancelled { .. } | Verdict::Superseded { .. } => {}
        }
        for path in &review.files {
            println!("  {}", path.display());
        }
        println!("  completion event {} ({})", completion.event, completion.context().kind);
    }
}

fn print_json(arrived: &[Arrived]) -> anyhow::Result<()> {
    let reviews: Vec<_> = arrived
        .iter()
        .map(|review| json!({ "completion": review.completion, "seconds": review.seconds, "files": review.files }))
        .collect();
    println!("{}", serde_json::to_string_pretty(&json!({ "reviews": reviews }))?);
    Ok(())
}

/// A line per review, redrawn in place on a terminal, written once per change elsewhere.
struct Lines {
    in_place: bool,
    drawn: usize,
    lines: BTreeMap<String, (String, Duration)>,
}

impl Lines {
    fn new() -> Self {
        Self { in_place: std::io::stderr().is_terminal(), drawn: 0, lines: BTreeMap::new() }
    }

    fn set(&mut self, who: &str, stage: &str, elapsed: Duration) {
        let former = self.lines.insert(who.to_owned(), (stage.to_owned(), elapsed));
        if self.in_place {
            self.draw();
        } else if former.is_none_or(|(former, _)| former != stage) {
            eprintln!("{who:<14} {:>6.1} s  {stage}", elapsed.as_secs_f64());
        }
    }

    fn draw(&mut self) {
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for (who, (stage, elapsed)) in &self.lines {
            text.push_str(&format!("\x1b[2K{who:<14} {:>6.1} s  {stage}\n", elapsed.as_secs_f64()));
        }
        self.drawn = self.lines.len();
        eprint!("{text}");
        if let Err(error) = std::io::stderr().flush() {
            eprintln!("{error}");
        }
    }

    fn finish(&self) {
        if self.in_place {
            eprintln!();
        }
    }
}

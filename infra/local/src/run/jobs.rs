//! The jobs there are, and every change of them over the wire: made, changed, deleted with all they ran.
//!
//! One change at a time, from the look to what follows the commit, and whole even if its caller hangs up. Whoever makes a job run as a service account must be allowed to act
//! as it, or a job would be a way to any identity.

use std::collections::BTreeMap;
use std::sync::{RwLockReadGuard, RwLockWriteGuard};

use super::job::{Body, JobRecord};
use super::refusal::Refusal;
use super::request::Page;
use super::resource::execution_etag;
use super::rest::{Answer, Call};
use super::{Inner, launch, now_us, shelf, task};
use crate::config::Job;
use crate::faults::Fault;

impl Inner {
    pub(super) fn jobs(&self) -> RwLockReadGuard<'_, BTreeMap<String, JobRecord>> {
        self.jobs.read().expect("no code panics while it holds the jobs")
    }

    fn jobs_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<String, JobRecord>> {
        self.jobs.write().expect("no code panics while it holds the jobs")
    }

    /// Ends the processes of an execution that nobody knows any more, and removes its log.
    async fn forget(&self, execution: &str) {
        let stop = self.running().get(execution).cloned();
        if let Some(stop) = stop {
            stop.cancel();
        }
        task::remove_log(&self.logs, execution).await;
    }
}

impl Call {
    /// Makes a job.
    pub(super) async fn create_job(&self, page: &Page, body: Body) -> Answer {
        self.may("run.jobs.create", &self.place.0)?;
        let resource = format!("{}/jobs/{}", self.place.0, page.job_id);
        if !self.is_here() {
            return Err(Refusal::NotFound(self.place.0.clone()));
        }
        let job = self.checked(page, &page.job_id, body)?;
        self.alone(move |call| async move {
            if call.run.0.jobs().contains_key(&job.name) {
                return Err(Refusal::Exists(resource));
            }
            call.add(job).await
        })
        .await
    }

    /// Puts another job in the place of one.
    pub(super) async fn update_job(&self, job: &str, page: &Page, body: Body) -> Answer {
        let (name, page) = (job.to_owned(), page.clone());
        self.alone(move |call| async move {
            let former = match call.job("run.jobs.update", &name) {
                Err(Refusal::NotFound(_)) if page.allow_missing && call.is_here() => None,
                found => Some(found?),
            };
            let etag = body.etag.clone();
            let job = call.checked(&page, &name, body)?;
            let Some(former) = former else {
                call.may("run.jobs.create", &call.place.0)?;
                return call.add(job).await;
            };
            if !etag.is_empty() && etag != former.etag() {
                return Err(Refusal::Conflict(job.name));
            }
            let record = JobRecord { job, updated_us: now_us(), generation: former.generation + 1, ..former };
            call.keep(record).await
        })
        .await
    }

    /// Deletes a job and every execution of it; what runs is ended.
    pub(super) async fn delete_job(&self, job: &str, page: &Page) -> Answer {
        let (name, page) = (job.to_owned(), page.clone());
        self.alone(move |call| async move {
            let record = call.job("run.jobs.delete", &name)?;
            expect(&page, &record.etag(), &name)?;
            let shown = call.job_resource(&record)?;
            let (inner, id) = (&call.run.0, launch::uuid());
            let (of, operation) = (name.clone(), id.clone());
            let forgotten = inner.store.write(move |txn| shelf::remove_job(txn, &of, &operation)).await?;
            inner.jobs_mut().remove(&name);
            for execution in &forgotten {
                inner.forget(execution).await;
            }
            call.answered(call.place.changed(&id, shown))
        })
        .await
    }

    /// Changes the jobs, one change at a time, and to its end: what follows a commit must follow it, and the next change
    /// must wait for that.
    async fn alone<F>(&self, deed: impl FnOnce(Self) -> F + Send + 'static) -> Answer
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let call = self.clone();
        let changed = self.run.0.tasks.spawn(async move {
            let inner = call.run.0.clone();
            let _changing = inner.changing.lock().await;
            deed(call).await
        });
        changed.await?
    }

    /// Deletes an execution; if it runs it is ended.
    pub(super) async fn delete_execution(&self, job: &str, name: &str, page: &Page) -> Answer {
        let record = self.execution("run.executions.delete", job, name)?;
        expect(page, &execution_etag(&record), name)?;
        let (inner, execution) = (self.run.0.clone(), record.clone());
        let deleted = self.run.0.tasks.spawn(async move {
            let (job, seq) = (execution.job, execution.seq);
            inner.store.write(move |txn| shelf::remove(txn, &job, seq)).await?;
            inner.forget(&execution.name).await;
            Ok::<_, Refusal>(())
        });
        deleted.await??;
        let mut operation = self.place.operation(&record);
        operation["done"] = true.into();
        operation["response"] = operation["metadata"].clone();
        self.answered(operation)
    }

    /// What this machine can run and the caller may have run.
    fn checked(&self, page: &Page, name: &str, body: Body) -> Result<Job, Refusal> {
        if page.validate_only {
            return Err(Refusal::Invalid("validate_only is not served here".into()));
        }
        let job = body.job(name)?;
        let project = &self.run.0.project;
        self.may("iam.serviceAccounts.actAs", &format!("projects/{project}/serviceAccounts/{}", job.service_account))?;
        self.run.0.check(&job)?;
        Ok(job)
    }

    async fn add(&self, job: Job) -> Answer {
        let count = self.run.0.jobs().len();
        if count >= self.run.0.quotas.jobs {
            return Err(Refusal::Jobs(count));
        }
        self.keep(JobRecord::new(job, now_us())).await
    }

    async fn keep(&self, record: JobRecord) -> Answer {
        let (inner, id) = (&self.run.0, launch::uuid());
        let (kept, operation) = (record.clone(), id.clone());
        inner.store.write(move |txn| shelf::put_job(txn, &kept, &operation)).await?;
        inner.jobs_mut().insert(record.job.name.clone(), record.clone());
        self.answered(self.place.changed(&id, self.job_resource(&record)?))
    }

    fn answered(&self, answer: serde_json::Value) -> Answer {
        if self.run.0.faults.roll(Fault::LoseReply) { Err(Refusal::ReplyLost) } else { Ok(answer) }
    }
}

fn expect(page: &Page, etag: &str, name: &str) -> Result<(), Refusal> {
    if page.validate_only {
        return Err(Refusal::Invalid("validate_only is not served here".into()));
    }
    if !page.etag.is_empty() && page.etag != etag {
        return Err(Refusal::Conflict(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::run::tests::{CALLER, bench};

    fn body(text: &str) -> Body {
        let container = json!({ "image": "shell", "args": [text] });
        let template = json!({ "containers": [container], "serviceAccount": CALLER });
        serde_json::from_value(json!({ "template": { "template": template } })).expect("a job")
    }

    /// Polls a change once and drops it, as a server does when its caller hangs up.
    async fn hung_up(change: impl Future<Output = Answer>) {
        tokio::select! {
            biased;
            done = change => panic!("done at its first poll: {done:?}"),
            () = std::future::ready(()) => {}
        }
    }

    #[tokio::test]
    async fn a_change_whose_caller_hangs_up_is_carried_out_whole_and_the_next_one_waits_for_it() {
        let (dir, call) = bench().await;
        let page: Page = serde_json::from_value(json!({ "jobId": "made" })).expect("a query");
        hung_up(call.create_job(&page, body("one"))).await;
        // Each waits its turn, so the answer of the last says what the first two came to.
        hung_up(call.update_job("made", &page, body("two"))).await;
        let third = call.update_job("made", &page, body("three")).await.expect("it is there to change");
        assert_eq!(third["response"]["generation"], "3", "{third}");
        hung_up(call.delete_job("made", &page)).await;
        let gone = call.delete_job("made", &page).await;
        assert!(matches!(gone, Err(Refusal::NotFound(_))), "{gone:?}");
        let again = call.create_job(&page, body("four")).await.expect("its name is free");
        assert_eq!(again["response"]["generation"], "1", "{again}");
        drop((call, dir));
    }
}

//! Google's predefined roles, as far as this cloud serves their permissions.
//! Source: <https://cloud.google.com/iam/docs/understanding-roles>.

/// The role that may do everything to what it is bound on and to all below it.
pub(super) const OWNER: &str = "roles/owner";

/// Every role below.
pub(super) const NAMES: &[&str] = &[
    "roles/iam.serviceAccountUser",
    "roles/pubsub.editor",
    "roles/pubsub.publisher",
    "roles/pubsub.subscriber",
    "roles/pubsub.viewer",
    "roles/run.developer",
    "roles/run.jobsExecutor",
    "roles/run.jobsExecutorWithOverrides",
    "roles/run.viewer",
    "roles/storage.admin",
    "roles/storage.objectAdmin",
    "roles/storage.objectCreator",
    "roles/storage.objectUser",
    "roles/storage.objectViewer",
];

/// The permissions of a predefined role; `None` if this cloud does not know the role.
pub(super) fn predefined(role: &str) -> Option<&'static [&'static str]> {
    Some(match role {
        "roles/storage.objectViewer" => &["storage.objects.get", "storage.objects.list"],
        "roles/storage.objectCreator" => &["storage.objects.create"],
        "roles/storage.objectUser" => &[
            "storage.objects.create",
            "storage.objects.delete",
            "storage.objects.get",
            "storage.objects.list",
            "storage.objects.update",
        ],
        "roles/storage.objectAdmin" => &[
            "storage.objects.create",
            "storage.objects.delete",
            "storage.objects.get",
            "storage.objects.list",
            "storage.objects.update",
        ],
        "roles/pubsub.publisher" => &["pubsub.topics.publish"],
        "roles/pubsub.subscriber" => {
            &["pubsub.snapshots.seek", "pubsub.subscriptions.consume", "pubsub.topics.attachSubscription"]
        }
        "roles/pubsub.viewer" => &[
            "pubsub.snapshots.get",
            "pubsub.snapshots.list",
            "pubsub.subscriptions.get",
            "pubsub.subscriptions.list",
            "pubsub.topics.get",
            "pubsub.topics.list",
        ],
        "roles/storage.admin" => &[
            "storage.buckets.create",
            "storage.buckets.delete",
            "storage.buckets.get",
            "storage.buckets.getIamPolicy",
            "storage.buckets.list",
            "storage.buckets.setIamPolicy",
            "storage.buckets.update",
            "storage.objects.create",
            "storage.objects.delete",
            "storage.objects.get",
            "storage.objects.list",
            "storage.objects.update",
        ],
        "roles/pubsub.editor" => &[
            "pubsub.snapshots.create",
            "pubsub.snapshots.delete",
            "pubsub.snapshots.get",
            "pubsub.snapshots.list",
            "pubsub.snapshots.seek",
            "pubsub.snapshots.update",
            "pubsub.subscriptions.consume",
            "pubsub.subscriptions.create",
            "pubsub.subscriptions.delete",
            "pubsub.subscriptions.get",
            "pubsub.subscriptions.list",
            "pubsub.subscriptions.update",
            "pubsub.topics.attachSubscription",
            "pubsub.topics.create",
            "pubsub.topics.delete",
            "pubsub.topics.detachSubscription",
            "pubsub.topics.get",
            "pubsub.topics.list",
            "pubsub.topics.publish",
            "pubsub.topics.update",
        ],
        "roles/run.viewer" => &[
            "run.executions.get",
            "run.executions.list",
            "run.jobs.get",
            "run.jobs.list",
            "run.operations.get",
            "run.tasks.get",
            "run.tasks.list",
        ],
        "roles/run.developer" => &[
            "run.executions.cancel",
            "run.executions.delete",
            "run.executions.get",
            "run.executions.list",
            "run.jobs.create",
            "run.jobs.delete",
            "run.jobs.get",
            "run.jobs.list",
            "run.jobs.run",
            "run.jobs.runWithOverrides",
            "run.jobs.update",
            "run.operations.get",
            "run.tasks.get",
            "run.tasks.list",
        ],
        "roles/iam.serviceAccountUser" => &["iam.serviceAccounts.actAs"],
        "roles/run.jobsExecutor" => &["run.executions.cancel", "run.jobs.run"],
        "roles/run.jobsExecutorWithOverrides" => {
            &["run.executions.cancel", "run.jobs.run", "run.jobs.runWithOverrides"]
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_is_named_and_every_name_is_a_role() {
        assert!(NAMES.iter().all(|name| predefined(name).is_some()));
        let arms = include_str!("roles.rs").lines().filter(|line| {
            let line = line.trim_start();
            line.starts_with("\"roles/") && line.contains("=>")
        });
        assert_eq!(arms.count(), NAMES.len());
    }
}

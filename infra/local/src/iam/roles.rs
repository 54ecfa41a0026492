//! Google's predefined roles, as far as this cloud serves their permissions.
//! Source: <https://cloud.google.com/iam/docs/understanding-roles>.

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
            "storage.buckets.get",
            "storage.buckets.list",
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

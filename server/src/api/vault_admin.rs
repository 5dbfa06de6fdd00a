//! Service `VaultAdmin`: each handler reads the request, calls one verb and renders the response.

use std::sync::Arc;

use token_vault_proto::v1 as pb;
use token_vault_proto::v1::vault_admin_server::VaultAdmin;
use tonic::{Request, Response, Status};

use super::call::Call;
use super::convert::bounds::Page;
use super::convert::{GetWorkspace, Jobs, RevokeApiKey};
use super::status::respond;
use crate::vault::Vault;

pub(super) struct VaultAdminService {
    vault: Arc<Vault>,
}

impl VaultAdminService {
    pub(super) fn new(vault: Arc<Vault>) -> Self {
        Self { vault }
    }
}

#[tonic::async_trait]
impl VaultAdmin for VaultAdminService {
    async fn create_api_key(
        &self,
        request: Request<pb::CreateApiKeyRequest>,
    ) -> Result<Response<pb::CreateApiKeyResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let outcome = async { self.vault.create_api_key(call.caller()?, message.try_into()?).await };
        respond(&call, outcome.await)
    }

    async fn list_api_keys(
        &self,
        request: Request<pb::ListApiKeysRequest>,
    ) -> Result<Response<pb::ListApiKeysResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let mut page = Page::<pb::ApiKey>::default();
        let outcome = async {
            self.vault.list_api_keys(call.caller()?, message.try_into()?, |key| page.take(key)).await
        };
        respond(&call, outcome.await.map(|rest| page.with(rest)))
    }

    async fn revoke_api_key(
        &self,
        request: Request<pb::RevokeApiKeyRequest>,
    ) -> Result<Response<pb::RevokeApiKeyResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let outcome = async {
            let RevokeApiKey { request_id, key } = message.try_into()?;
            self.vault.revoke_api_key(call.caller()?, request_id, &key).await
        };
        respond(&call, outcome.await)
    }

    async fn rotate_api_key(
        &self,
        request: Request<pb::RotateApiKeyRequest>,
    ) -> Result<Response<pb::RotateApiKeyResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let outcome = async { self.vault.rotate_api_key(call.caller()?, message.try_into()?).await };
        respond(&call, outcome.await)
    }

    async fn list_jobs(
        &self,
        request: Request<pb::ListJobsRequest>,
    ) -> Result<Response<pb::ListJobsResponse>, Status> {
        let (call, _) = Call::open(request)?;
        let outcome = async { self.vault.list_jobs(call.caller()?).await.map(Jobs) };
        respond(&call, outcome.await)
    }

    async fn run_job(
        &self,
        request: Request<pb::RunJobRequest>,
    ) -> Result<Response<pb::RunJobResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let outcome = async { self.vault.run_job(call.caller()?, message.try_into()?).await };
        respond(&call, outcome.await)
    }

    async fn list_job_runs(
        &self,
        request: Request<pb::ListJobRunsRequest>,
    ) -> Result<Response<pb::ListJobRunsResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let mut page = Page::<pb::JobRun>::default();
        let outcome = async {
            self.vault.list_job_runs(call.caller()?, message.try_into()?, |run| page.take(run)).await
        };
        respond(&call, outcome.await.map(|rest| page.with(rest)))
    }

    async fn rotate_key(
        &self,
        request: Request<pb::RotateKeyRequest>,
    ) -> Result<Response<pb::RotateKeyResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let outcome = async { self.vault.rotate_key(call.caller()?, message.try_into()?).await };
        respond(&call, outcome.await)
    }

    async fn get_workspace(
        &self,
        request: Request<pb::GetWorkspaceRequest>,
    ) -> Result<Response<pb::GetWorkspaceResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let outcome = async {
            let GetWorkspace { workspace } = message.try_into()?;
            self.vault.get_workspace(call.caller()?, workspace).await
        };
        respond(&call, outcome.await)
    }

    async fn list_workspaces(
        &self,
        request: Request<pb::ListWorkspacesRequest>,
    ) -> Result<Response<pb::ListWorkspacesResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let mut page = Page::<pb::Workspace>::default();
        let outcome = async {
            self.vault
                .list_workspaces(call.caller()?, message.try_into()?, |workspace| page.take(workspace))
                .await
        };
        respond(&call, outcome.await.map(|rest| page.with(rest)))
    }

    async fn shred_workspace(
        &self,
        request: Request<pb::ShredWorkspaceRequest>,
    ) -> Result<Response<pb::ShredWorkspaceResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let outcome = async { self.vault.shred_workspace(call.caller()?, message.try_into()?).await };
        respond(&call, outcome.await)
    }

    async fn list_subscriptions(
        &self,
        request: Request<pb::ListSubscriptionsRequest>,
    ) -> Result<Response<pb::ListSubscriptionsResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let mut page = Page::<pb::Subscription>::default();
        let outcome = async {
            self.vault
                .list_subscriptions(call.caller()?, message.try_into()?, |subscription| {
                    page.take(subscription)
                })
                .await
        };
        respond(&call, outcome.await.map(|rest| page.with(rest)))
    }

    async fn delete_subscription(
        &self,
        request: Request<pb::DeleteSubscriptionRequest>,
    ) -> Result<Response<pb::DeleteSubscriptionResponse>, Status> {
        let (call, message) = Call::open(request)?;
        let outcome = async { self.vault.delete_subscription(call.caller()?, message.try_into()?).await };
        respond(&call, outcome.await)
    }

    async fn get_vault_status(
        &self,
        request: Request<pb::GetVaultStatusRequest>,
    ) -> Result<Response<pb::GetVaultStatusResponse>, Status> {
        let (call, _) = Call::open(request)?;
        let outcome = async { self.vault.status(call.caller()?).await };
        respond(&call, outcome.await)
    }
}

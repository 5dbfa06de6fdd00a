//! The portal of the demo, which ends with it.

use std::net::SocketAddr;

use anyhow::Context;
use token_vault_client::v1::{CreateConnectLinkRequest, api_key};
use token_vault_client::{ApiKey, Vault};
use token_vault_portal::{PortalConfig, serve};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::serving::Serving;
use super::story::{WORKSPACE, new_key};

/// Where the portal will be. The vault has to know it before it starts, because its links lead there.
pub(super) struct Place(TcpListener);

/// The portal. It stops when this is dropped.
pub(super) struct Portal {
    /// For the person who watches the demo.
    pub(super) link: String,
    _running: DropGuard,
}

impl Place {
    pub(super) async fn reserve(listen: SocketAddr) -> anyhow::Result<Self> {
        let bound = TcpListener::bind(listen).await;
        Ok(Self(bound.with_context(|| {
            format!("the portal cannot listen on {listen}; try --portal-listen 127.0.0.1:0")
        })?))
    }

    pub(super) fn url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.0.local_addr()?))
    }

    /// Serves the portal with a key of its own, and makes a link.
    pub(super) async fn open(self, serving: &Serving) -> anyhow::Result<Portal> {
        let admin = serving.connect(ApiKey::from_file(&serving.key_file)?).await?;
        let key = new_key(&admin, "portal", api_key::Role::Portal).await?;
        let vault = Vault::builder(format!("http://{}", serving.grpc), key).connect_lazy()?;
        let config = PortalConfig::new(self.url()?, vault);
        let stop = CancellationToken::new();
        tokio::spawn(serve(config, self.0, stop.clone()));
        // Several people may try it.
        let request = CreateConnectLinkRequest {
            workspace_id: WORKSPACE.into(),
            provider: "meta".into(),
            max_uses: 100,
            ..CreateConnectLinkRequest::default()
        };
        let link = admin.create_connect_link(request).await?.url;
        Ok(Portal { link, _running: stop.drop_guard() })
    }
}

//! A vault that denies calls as scripted, then answers with empty responses, and remembers what it received. Its feed
//! is in
//! `feed.rs`.

use std::sync::{Arc, Mutex};

use ::token_vault_client::v1::token_vault_server::{TokenVault, TokenVaultServer};
use ::token_vault_client::v1::*;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::feed::{Answers, Feed};

/// One call as the vault received it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) authorization: String,
    pub(crate) has_timeout: bool,
    pub(crate) request_id: String,
}

/// The scripted vault.
pub(crate) struct Scripted {
    pub(crate) url: String,
    pub(crate) feed: Arc<Feed>,
    shared: Arc<Shared>,
}

struct Shared {
    feed: Arc<Feed>,
    refusals: Mutex<Vec<Status>>,
    calls: Mutex<Vec<Call>>,
}

impl Scripted {
    pub(crate) async fn start(refusals: impl IntoIterator<Item = Status>) -> Self {
        Self::listen("127.0.0.1:0", refusals).await
    }

    pub(crate) async fn start_at(address: &str) -> Self {
        Self::listen(address, []).await
    }

    /// Serves over TLS.
    pub(crate) async fn start_with(tls: ServerTlsConfig) -> Self {
        let server = Server::builder().tls_config(tls).unwrap();
        let started = Self::serve("127.0.0.1:0", [], server).await;
        Self { url: started.url.replace("http://127.0.0.1", "https://localhost"), ..started }
    }

    async fn listen(address: &str, refusals: impl IntoIterator<Item = Status>) -> Self {
        Self::serve(address, refusals, Server::builder()).await
    }

    async fn serve(address: &str, refusals: impl IntoIterator<Item = Status>, mut server: Server) -> Self {
        let mut refusals: Vec<Status> = refusals.into_iter().collect();
        refusals.reverse();
        let feed = Arc::new(Feed::default());
        let refusals = Mutex::new(refusals);
        let shared = Arc::new(Shared { feed: feed.clone(), refusals, calls: Mutex::default() });
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = TokenVaultServer::from_arc(shared.clone());
        tokio::spawn(server.add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        Self { url, feed, shared }
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }
}

/// The URL of a server that takes a call's first bytes and hangs up.
pub(crate) async fn hangs_up() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 1024]).await;
            // The call is in flight when the connection breaks.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    url
}

impl Shared {
    fn answer<Q, A: Default>(&self, request: &Request<Q>, request_id: &str) -> Result<Response<A>, Status> {
        let header = |name| request.metadata().get(name).and_then(|value| value.to_str().ok());
        self.calls.lock().unwrap().push(Call {
            authorization: header("authorization").unwrap_or_default().to_owned(),
            has_timeout: header("grpc-timeout").is_some(),
            request_id: request_id.to_owned(),
        });
        match self.refusals.lock().unwrap().pop() {
            Some(refusal) => Err(refusal),
            None => Ok(Response::new(A::default())),
        }
    }
}

macro_rules! answers {
    ($($name:ident($request:ident) -> $response:ident $($id:ident)?;)*) => {
        #[tonic::async_trait]
        impl TokenVault for Shared {
            type WatchExpiryEventsStream = Answers;

            async fn watch_expiry_events(
                &self,
                request: Request<WatchExpiryEventsRequest>,
            ) -> Result<Response<Answers>, Status> {
                self.feed.watch(request.into_inner()).map(Response::new)
            }

            async fn acknowledge_events(
                &self,
                request: Request<AcknowledgeEventsRequest>,
            ) -> Result<Response<AcknowledgeEventsResponse>, Status> {
                self.feed.acknowledge(request.into_inner()).map(Response::new)
            }

            $(async fn $name(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                let id = String::new();
                $(let id = { let _ = id; request.get_ref().$id.clone() };)?
                self.answer(&request, &id)
            })*
        }
    };
}

answers! {
    store_token(StoreTokenRequest) -> StoreTokenResponse request_id;
    begin_authorization(BeginAuthorizationRequest) -> BeginAuthorizationResponse request_id;
    complete_authorization(CompleteAuthorizationRequest) -> CompleteAuthorizationResponse;
    create_connect_link(CreateConnectLinkRequest) -> CreateConnectLinkResponse request_id;
    list_connect_links(ListConnectLinksRequest) -> ListConnectLinksResponse;
    revoke_connect_link(RevokeConnectLinkRequest) -> RevokeConnectLinkResponse request_id;
    open_connect_link(OpenConnectLinkRequest) -> OpenConnectLinkResponse;
    exchange_token(ExchangeTokenRequest) -> ExchangeTokenResponse request_id;
    validate_token(ValidateTokenRequest) -> ValidateTokenResponse;
    fetch_access_token(FetchAccessTokenRequest) -> FetchAccessTokenResponse;
    get_token(GetTokenRequest) -> GetTokenResponse;
    list_tokens(ListTokensRequest) -> ListTokensResponse;
    list_ad_accounts(ListAdAccountsRequest) -> ListAdAccountsResponse;
    report_token_error(ReportTokenErrorRequest) -> ReportTokenErrorResponse;
    revoke_token(RevokeTokenRequest) -> RevokeTokenResponse request_id;
    report_provider_callback(ReportProviderCallbackRequest) -> ReportProviderCallbackResponse;
    list_expiry_events(ListExpiryEventsRequest) -> ListExpiryEventsResponse;
}

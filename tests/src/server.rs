//! A real server in a private folder, and its admin API over the Unix socket.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use avouch_proto::agent_v1::agent_client::AgentClient;
use avouch_proto::bundle_v1::bundle_client::BundleClient;
use avouch_proto::entry_v1::entry_client::EntryClient;
use avouch_proto::localauthority_v1::local_authority_client::LocalAuthorityClient;
use avouch_proto::svid_v1::svid_client::SvidClient;
use avouch_proto::{agent_v1, bundle_v1, entry_v1, localauthority_v1, types};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::daemon::{Daemon, binary};
use crate::{eventually, uds};

/// Most entries in one call of a batch.
const BATCH_MAX: usize = 500;

/// What a test may want different.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    pub trust_domain: String,
    /// More lines in `server {}`.
    pub server: String,
    /// More blocks in `plugins {}`.
    pub plugins: String,
    /// Lines in `ratelimit {}`.
    pub rate_limits: &'static str,
    pub log_level: &'static str,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            trust_domain: "example.org".to_owned(),
            server: String::new(),
            plugins: String::new(),
            rate_limits: "attestation = false",
            log_level: "DEBUG",
        }
    }
}

/// A server, running or stopped; the folder lives as long as this value.
pub struct Server {
    pub dir: Arc<TempDir>,
    pub trust_domain: String,
    pub port: u16,
    pub socket: PathBuf,
    /// Where people ask, whoever they are.
    pub people: PathBuf,
    pub config: PathBuf,
    daemon: Option<Daemon>,
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A private folder with a short path: Unix sockets live in it.
pub fn private_dir() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("av").tempdir_in("/tmp").unwrap())
}

impl Server {
    /// Starts a server with its defaults and waits until it is healthy.
    pub async fn start() -> Self {
        Self::start_with(ServerOptions::default()).await
    }

    /// Starts a server and waits until it is healthy.
    pub async fn start_with(options: ServerOptions) -> Self {
        let mut server = Self::prepare(&options);
        server.restart().await;
        server
    }

    /// Writes the configuration without starting anything.
    pub fn prepare(options: &ServerOptions) -> Self {
        let dir = private_dir();
        // Other users' processes are workloads in some tests and must reach the sockets below.
        open_to_all(dir.path());
        let server = Self {
            trust_domain: options.trust_domain.clone(),
            port: free_port(),
            socket: dir.path().join("sp/api.sock"),
            people: dir.path().join("people/api.sock"),
            config: dir.path().join("server.conf"),
            dir,
            daemon: None,
        };
        std::fs::create_dir(server.data_dir()).unwrap();
        std::fs::write(&server.config, server.config_text(options)).unwrap();
        server
    }

    fn config_text(&self, options: &ServerOptions) -> String {
        let data = self.data_dir();
        let data = data.display();
        format!(
            r#"server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  trust_domain = "{domain}"
  data_dir = "{data}"
  socket_path = "{socket}"
  people_socket_path = "{people}"
  console_address = "127.0.0.1:0"
  log_level = "{log_level}"
  ratelimit {{
    {rate_limits}
  }}
  {more}
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = "{data}/datastore.sqlite3"
    }}
  }}
  KeyManager "disk" {{
    plugin_data {{
      keys_path = "{data}/keys.json"
    }}
  }}
  NodeAttestor "join_token" {{
    plugin_data {{}}
  }}
  {plugins}
}}
"#,
            port = self.port,
            domain = self.trust_domain,
            socket = self.socket.display(),
            people = self.people.display(),
            log_level = options.log_level,
            rate_limits = options.rate_limits,
            more = options.server,
            plugins = options.plugins,
        )
    }

    /// Starts the stopped server again with the same folder, and waits until it is healthy.
    pub async fn restart(&mut self) {
        let daemon = self.spawn();
        self.adopt(daemon).await;
    }

    /// Takes a process of this server's that somebody else started, and waits until it is healthy.
    pub async fn adopt(&mut self, daemon: Daemon) {
        let socket = self.socket.clone();
        eventually("a healthy server", async || {
            assert!(daemon.status().is_none(), "the server ended: {}", daemon.log());
            let mut health = HealthClient::new(uds(&socket).await.ok()?);
            let answer = health.check(HealthCheckRequest::default()).await.ok()?;
            (answer.into_inner().status == 1).then_some(())
        })
        .await;
        self.daemon = Some(daemon);
    }

    /// Starts the process only.
    pub fn spawn(&self) -> Daemon {
        let mut command = Command::new(binary("avouch-server"));
        Daemon::spawn("server", command.args(["run", "-config"]).arg(&self.config))
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a running server")
    }

    /// Stops the server politely; its folder stays.
    pub async fn stop(&mut self) -> std::process::ExitStatus {
        self.daemon.take().expect("a running server").stop().await
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// A key of the server's key manager (PKCS#8), such as `JWT-Signer-A`.
    pub fn key(&self, id: &str) -> Vec<u8> {
        use base64::Engine as _;
        let text = std::fs::read_to_string(self.data_dir().join("keys.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let key = json["keys"][id].as_str().unwrap_or_else(|| panic!("no key {id}"));
        base64::engine::general_purpose::STANDARD.decode(key).unwrap()
    }

    pub async fn channel(&self) -> Channel {
        uds(&self.socket).await.unwrap()
    }

    pub async fn agents(&self) -> AgentClient<Channel> {
        AgentClient::new(self.channel().await)
    }

    pub async fn entries(&self) -> EntryClient<Channel> {
        EntryClient::new(self.channel().await)
    }

    pub async fn bundles(&self) -> BundleClient<Channel> {
        BundleClient::new(self.channel().await)
    }

    pub async fn authorities(&self) -> LocalAuthorityClient<Channel> {
        LocalAuthorityClient::new(self.channel().await)
    }

    /// Puts a new X.509 authority to use; gives the ID of the one before, and the new one's.
    pub async fn rotate_x509(&self) -> (String, String) {
        let mut client = self.authorities().await;
        let made = client.prepare_x509_authority(localauthority_v1::PrepareX509AuthorityRequest {}).await;
        let next = made.unwrap().into_inner().prepared_authority.unwrap().authority_id;
        let request = localauthority_v1::ActivateX509AuthorityRequest { authority_id: next };
        client.activate_x509_authority(request).await.unwrap();
        let states =
            client.get_x509_authority_state(localauthority_v1::GetX509AuthorityStateRequest {}).await;
        let states = states.unwrap().into_inner();
        (states.old.unwrap().authority_id, states.active.unwrap().authority_id)
    }

    /// As [`Server::rotate_x509`], with the JWT authorities.
    pub async fn rotate_jwt(&self) -> (String, String) {
        let mut client = self.authorities().await;
        let made = client.prepare_jwt_authority(localauthority_v1::PrepareJwtAuthorityRequest {}).await;
        let next = made.unwrap().into_inner().prepared_authority.unwrap().authority_id;
        let request = localauthority_v1::ActivateJwtAuthorityRequest { authority_id: next };
        client.activate_jwt_authority(request).await.unwrap();
        let states = client.get_jwt_authority_state(localauthority_v1::GetJwtAuthorityStateRequest {}).await;
        let states = states.unwrap().into_inner();
        (states.old.unwrap().authority_id, states.active.unwrap().authority_id)
    }

    pub async fn svids(&self) -> SvidClient<Channel> {
        SvidClient::new(self.channel().await)
    }

    /// All attested nodes.
    pub async fn nodes(&self) -> Vec<types::Agent> {
        let request = agent_v1::ListAgentsRequest::default();
        self.agents().await.list_agents(request).await.unwrap().into_inner().agents
    }

    /// A join token that lives for ten minutes.
    pub async fn token(&self) -> String {
        let request = agent_v1::CreateJoinTokenRequest { ttl: 600, ..Default::default() };
        self.agents().await.create_join_token(request).await.unwrap().into_inner().value
    }

    /// The agent's ID that a join token leads to.
    pub fn agent_id(&self, token: &str) -> String {
        format!("spiffe://{}/spire/agent/join_token/{token}", self.trust_domain)
    }

    /// The own bundle.
    pub async fn bundle(&self) -> types::Bundle {
        self.bundles().await.get_bundle(bundle_v1::GetBundleRequest::default()).await.unwrap().into_inner()
    }

    /// The own bundle's certificates as PEM.
    pub async fn bundle_pem(&self) -> String {
        let bundle = self.bundle().await;
        let authorities = bundle.x509_authorities.iter().map(|a| a.asn1.as_slice());
        avouch_credential::x509::pem::certificates_to_pem(authorities)
    }

    /// Tries to create one entry: the entry, or the item's status.
    pub async fn try_create(&self, entry: types::Entry) -> Result<types::Entry, types::Status> {
        let request = entry_v1::BatchCreateEntryRequest { entries: vec![entry], output_mask: None };
        let answer = self.entries().await.batch_create_entry(request).await.unwrap().into_inner();
        let result = answer.results.into_iter().next().unwrap();
        let status = result.status.unwrap();
        if status.code == 0 { Ok(result.entry.unwrap()) } else { Err(status) }
    }

    /// Creates one entry.
    pub async fn create(&self, entry: types::Entry) -> types::Entry {
        self.try_create(entry).await.unwrap()
    }

    /// Creates any number of entries, as many in one call as the server takes.
    pub async fn create_all(&self, entries: Vec<types::Entry>) -> Vec<types::Entry> {
        let mut client = self.entries().await;
        let mut made = Vec::with_capacity(entries.len());
        for batch in entries.chunks(BATCH_MAX) {
            let request = entry_v1::BatchCreateEntryRequest { entries: batch.to_vec(), output_mask: None };
            let answer = client.batch_create_entry(request).await.unwrap().into_inner();
            made.extend(answer.results.into_iter().map(|result| result.entry.unwrap()));
        }
        made
    }

    /// Replaces one entry.
    pub async fn update(&self, entry: types::Entry) -> types::Entry {
        let request =
            entry_v1::BatchUpdateEntryRequest { entries: vec![entry], input_mask: None, output_mask: None };
        let answer = self.entries().await.batch_update_entry(request).await.unwrap().into_inner();
        let result = answer.results.into_iter().next().unwrap();
        assert_eq!(result.status.unwrap().code, 0);
        result.entry.unwrap()
    }

    /// Deletes one entry.
    pub async fn delete(&self, id: &str) {
        let request = entry_v1::BatchDeleteEntryRequest { ids: vec![id.to_owned()] };
        let answer = self.entries().await.batch_delete_entry(request).await.unwrap().into_inner();
        assert_eq!(answer.results[0].status.as_ref().unwrap().code, 0);
    }
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Splits an ID for the wire without checking it: tests also send what is no ID.
pub fn wire_id(id: &str) -> types::Spiffeid {
    let rest = id.strip_prefix("spiffe://").unwrap_or(id);
    let cut = rest.find('/').unwrap_or(rest.len());
    types::Spiffeid { trust_domain: rest[..cut].to_owned(), path: rest[cut..].to_owned() }
}

/// An entry of `example.org` with every optional field unset.
pub fn entry(parent: &str, path: &str, selectors: &[&str]) -> types::Entry {
    let selectors = selectors.iter().map(|s| {
        let (kind, value) = s.split_once(':').unwrap();
        types::Selector { r#type: kind.to_owned(), value: value.to_owned() }
    });
    types::Entry {
        spiffe_id: Some(wire_id(&format!("spiffe://example.org{path}"))),
        parent_id: Some(wire_id(parent)),
        selectors: selectors.collect(),
        ..Default::default()
    }
}

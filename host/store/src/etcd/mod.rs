//! etcd, for clusters whose API servers share a store: Kubernetes' own keys, so that either may take over from the other.
//!
//! Start at [`EtcdStore::connect`]. One watch of everything under the root feeds the same shared history that the other
//! engines have (`follow.rs`); compaction is elected as kube-apiserver elects it (`compact.rs`).
//!
//! Every put that expires has a lease of its own: etcd deletes all keys of a lease in one revision, and here a revision
//! names one change. (Events of a stock kube-apiserver on the same etcd do share one; a batch never parts them.)

mod compact;
mod follow;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, ConnectOptions, Error, GetOptions, GetResponse, KeyValue, KvClient,
    PutOptions, ResponseHeader, TlsOptions, TxnOp, TxnOpResponse, WatchOptions,
};

use self::follow::Follower;
use crate::engine::{check, now};
use crate::{
    Change, Counted, Entry, History, Outcome, Page, Range, Read, Revision, Store, StoreError, Txn, Watch, snapshot,
};

pub use etcd_client::{Certificate, Identity};

/// Entries fetched in one request: a list of any length never needs a message of any size.
const PAGE: usize = 1000;

/// Where etcd is and how to speak to it.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// `https://10.0.0.1:2379`; all members of one cluster.
    pub endpoints: Vec<String>,
    /// What every key begins with, ending in `/`. kube-apiserver's `--etcd-prefix`, with the slash.
    pub root: String,
    /// Needed for `https` endpoints.
    pub tls: Option<EtcdTls>,
    pub user: Option<(String, String)>,
    /// How long a request may take.
    pub timeout: Duration,
    /// `age`: compaction. `bytes`: what is kept here for watchers; older changes come from etcd again.
    pub history: History,
}

impl EtcdOptions {
    /// Plain connections, Kubernetes' root, ten seconds a request.
    pub fn new(endpoints: Vec<String>) -> Self {
        let timeout = Duration::from_secs(10);
        Self {
            endpoints,
            root: "/registry/".into(),
            tls: None,
            user: None,
            timeout,
            history: History::default(),
        }
    }
}

/// PEM, as kube-apiserver's `--etcd-cafile`, `--etcd-certfile` and `--etcd-keyfile` hold it.
#[derive(Debug, Clone)]
pub struct EtcdTls {
    /// Who signed the servers' certificates.
    pub ca: Certificate,
    /// Who we are, where the servers ask.
    pub identity: Option<Identity>,
    /// The name in the servers' certificates, where it is not the endpoint's.
    pub server_name: Option<String>,
}

/// A store in an etcd cluster (3.4 or newer).
pub struct EtcdStore {
    client: Client,
    kv: KvClient,
    root: Bytes,
    follower: Arc<Follower>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl EtcdStore {
    /// # Errors
    /// `Unavailable` when no member answers; later interruptions are bridged.
    pub async fn connect(options: EtcdOptions) -> Result<Self, StoreError> {
        let mut connect = ConnectOptions::new()
            .with_timeout(options.timeout)
            .with_connect_timeout(options.timeout)
            .with_keep_alive(Duration::from_secs(30), Duration::from_secs(10))
            .with_keep_alive_while_idle(true);
        if let Some(tls) = options.tls {
            let mut config = TlsOptions::new().ca_certificate(tls.ca);
            if let Some(identity) = tls.identity {
                config = config.identity(identity);
            }
            if let Some(name) = tls.server_name {
                config = config.domain_name(name);
            }
            connect = connect.with_tls(config);
        }
        if let Some((name, password)) = options.user {
            connect = connect.with_user(name, password);
        }
        let client = Client::connect(&options.endpoints, Some(connect))
            .await
            .map_err(unavailable)?;
        let kv = client.kv_client().max_decoding_message_size(usize::MAX);
        let root = Bytes::from(options.root);
        let current = current(&kv, &root).await?;
        let follower = Follower::new(client.clone(), root.clone(), current, options.history.bytes);
        let tasks = vec![
            tokio::spawn(follower.clone().follow()),
            tokio::spawn(compact::elected(kv.clone(), follower.clone(), options.history.age)),
        ];
        Ok(Self {
            client,
            kv,
            root,
            follower,
            tasks,
        })
    }

    async fn entries(
        &self,
        prefix: &[u8],
        start: &[u8],
        limit: usize,
        at: Option<Revision>,
    ) -> Result<GetResponse, StoreError> {
        let from = if start > prefix { start } else { prefix };
        if !from.starts_with(prefix) {
            // Behind the prefix's last key: nothing, at the revision asked for.
            return self
                .ask(from, GetOptions::new().with_limit(1).with_count_only(), at)
                .await;
        }
        let options = GetOptions::new()
            .with_range(prefix_end(prefix))
            .with_limit(limit as i64);
        self.ask(from, options, at).await
    }

    async fn ask(&self, key: &[u8], mut options: GetOptions, at: Option<Revision>) -> Result<GetResponse, StoreError> {
        if let Some(at) = at {
            if at == Revision::default() {
                return Err(self.compacted(at).await);
            }
            options = options.with_revision(at.0 as i64);
        }
        match self.kv.clone().get(key, Some(options)).await {
            Ok(response) => Ok(response),
            Err(error) => Err(self.explain(error, at.unwrap_or_default()).await),
        }
    }

    /// etcd's error, with the revisions that it does not tell.
    async fn explain(&self, error: Error, asked: Revision) -> StoreError {
        if is_compacted(&error) {
            return self.compacted(asked).await;
        }
        if is_future(&error) {
            return match current(&self.kv, &self.root).await {
                Ok(current) => StoreError::Future { asked, current },
                Err(error) => error,
            };
        }
        if let Error::GRpcStatus(status) = &error
            && status.message().contains("database space exceeded")
        {
            let source = std::io::Error::new(std::io::ErrorKind::StorageFull, status.message().to_owned());
            return StoreError::Full {
                path: "etcd".into(),
                source,
            };
        }
        unavailable(error)
    }

    /// etcd tells its oldest revision only to a watch that comes too late.
    async fn compacted(&self, asked: Revision) -> StoreError {
        let options = WatchOptions::new().with_start_revision(1);
        let mut oldest = Revision::default();
        if let Ok(mut stream) = self.client.watch_client().watch(&self.root[..], Some(options)).await {
            // The first message says that the watch was made, the second that it is over.
            for _ in 0..2 {
                let wait = tokio::time::timeout(Duration::from_secs(1), stream.message());
                if let Ok(Ok(Some(message))) = wait.await {
                    oldest = oldest.max(model::ResourceVersion(message.compact_revision() as u64));
                }
                if oldest > asked {
                    break;
                }
            }
        }
        StoreError::Compacted {
            asked,
            oldest: oldest.max(model::ResourceVersion(1)),
        }
    }
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        self.follower.close();
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn revision(&self) -> Result<Revision, StoreError> {
        current(&self.kv, &self.root).await
    }

    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Read, StoreError> {
        let mut response = self.ask(key, GetOptions::new(), at).await?;
        let revision = at.unwrap_or(revision(response.header()));
        Ok(Read {
            entry: response.take_kvs().pop().map(entry),
            revision,
        })
    }

    async fn range(&self, range: Range) -> Result<Page, StoreError> {
        let most = if range.limit == 0 { usize::MAX } else { range.limit };
        let (mut at, mut start) = (range.at, range.start);
        let mut entries = Vec::new();
        loop {
            let limit = PAGE.min(most - entries.len());
            let mut response = self.entries(&range.prefix, &start, limit, at).await?;
            let revision = at.unwrap_or(revision(response.header()));
            at = Some(revision);
            let found = response.take_kvs();
            let remaining = (response.count() as usize).saturating_sub(found.len());
            entries.extend(found.into_iter().map(entry));
            if remaining == 0 || entries.len() == most {
                return Ok(Page {
                    entries,
                    revision,
                    remaining: remaining as u64,
                });
            }
            if let Some(Entry { key, .. }) = entries.last() {
                start = Range::default().after(key).start;
            }
        }
    }

    async fn count(&self, prefix: &[u8], at: Option<Revision>) -> Result<Counted, StoreError> {
        let options = GetOptions::new().with_range(prefix_end(prefix)).with_count_only();
        let response = self.ask(prefix, options, at).await?;
        let revision = at.unwrap_or(revision(response.header()));
        Ok(Counted {
            count: response.count() as u64,
            revision,
        })
    }

    async fn txn(&self, txn: Txn) -> Result<Outcome, StoreError> {
        check(&txn)?;
        let mut expected: Vec<(Bytes, Option<Revision>)> = txn
            .compare
            .into_iter()
            .map(|compare| (compare.key, Some(compare.modified)))
            .collect();
        let mut lease = 0;
        let change = match txn.change {
            Change::Put { key, value, ttl } => {
                let mut options = PutOptions::new();
                if let Some(ttl) = ttl {
                    // Whole seconds, never less than asked.
                    let seconds = ttl.as_millis().div_ceil(1000).max(1) as i64;
                    let granted = self
                        .client
                        .lease_client()
                        .grant(seconds, None)
                        .await
                        .map_err(unavailable)?;
                    lease = granted.id();
                    options = options.with_lease(lease);
                }
                TxnOp::put(key, value, Some(options))
            }
            Change::Delete { key } => {
                expected.push((key.clone(), None));
                TxnOp::delete(key, None)
            }
        };
        let compares: Vec<Compare> = expected
            .iter()
            .map(|(key, modified)| match modified {
                Some(modified) => Compare::mod_revision(&key[..], CompareOp::Equal, modified.0 as i64),
                None => Compare::mod_revision(&key[..], CompareOp::Greater, 0),
            })
            .collect();
        let look: Vec<TxnOp> = expected.iter().map(|(key, _)| TxnOp::get(&key[..], None)).collect();
        let request = etcd_client::Txn::new().when(compares).and_then([change]).or_else(look);
        let response = match self.kv.clone().txn(request).await {
            Ok(response) => response,
            Err(error) => return Err(self.explain(error, Revision::default()).await),
        };
        if response.succeeded() {
            return Ok(Outcome::Done {
                revision: revision(response.header()),
            });
        }
        if lease != 0 {
            let mut leases = self.client.lease_client();
            // If this does not come through, the unused lease runs out.
            tokio::spawn(async move { leases.revoke(lease).await });
        }
        for ((key, modified), found) in expected.into_iter().zip(response.op_responses()) {
            let TxnOpResponse::Get(mut found) = found else {
                continue;
            };
            let now = found.take_kvs().pop().map(entry);
            let is = now.as_ref().map_or(Revision::default(), |now| now.modified);
            let holds = modified.map_or(is != Revision::default(), |modified| is == modified);
            if !holds {
                return Ok(Outcome::Refused { key, now });
            }
        }
        Err(StoreError::unavailable(
            "etcd",
            "it refused a transaction whose comparisons all hold",
        ))
    }

    async fn watch(&self, prefix: Bytes, after: Revision) -> Result<Watch, StoreError> {
        if !prefix.starts_with(&self.root) {
            let root = String::from_utf8_lossy(&self.root).into_owned();
            return Err(StoreError::unavailable(
                "a watch",
                format!("on this etcd only keys under {root} can be watched"),
            ));
        }
        // Only etcd knows what another of its clients compacted: ask for the revision first.
        match self
            .ask(&self.root, GetOptions::new().with_count_only(), Some(after))
            .await
        {
            Ok(_) | Err(StoreError::Future { .. }) => Ok(self.follower.watch(prefix, after)),
            Err(error) => Err(error),
        }
    }

    async fn request_progress(&self) -> Result<(), StoreError> {
        let revision = current(&self.kv, &self.root).await?;
        self.follower.request_progress(revision);
        Ok(())
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        if through == Revision::default() {
            return Ok(());
        }
        match self
            .kv
            .clone()
            .compact(through.0 as i64, Some(CompactionOptions::new()))
            .await
        {
            Ok(_) => {
                self.follower.forget(through);
                Ok(())
            }
            Err(error) if is_compacted(&error) => Ok(()),
            Err(error) => Err(self.explain(error, through).await),
        }
    }

    async fn backup(&self, to: &Path) -> Result<Revision, StoreError> {
        let revision = current(&self.kv, &self.root).await?;
        let path = to.to_owned();
        let failed = |error: std::io::Error| match crate::embedded::log::is_full(&error) {
            true => StoreError::Full {
                path: path.clone(),
                source: error,
            },
            false => StoreError::unavailable(format!("the backup file {}", path.display()), error),
        };
        let file = to.to_owned();
        let mut writer = blocking(move || snapshot::Writer::create(&file, revision))
            .await?
            .map_err(failed)?;
        let mut start = Bytes::new();
        loop {
            let mut response = self.entries(&self.root, &start, PAGE, Some(revision)).await?;
            let found = response.take_kvs();
            let Some(last) = found.last() else { break };
            start = Range::default().after(last.key()).start;
            let mut page = Vec::with_capacity(found.len());
            for kv in found {
                let expires = match kv.lease() {
                    0 => 0,
                    lease => self.expires(lease).await?,
                };
                page.push((entry(kv), expires));
            }
            writer = blocking(move || {
                page.iter()
                    .try_for_each(|(entry, expires)| writer.add(entry, *expires))
                    .map(|()| writer)
            })
            .await?
            .map_err(failed)?;
        }
        blocking(move || writer.finish()).await?.map_err(failed)?;
        Ok(revision)
    }
}

impl EtcdStore {
    /// When a lease runs out, in milliseconds since 1970.
    async fn expires(&self, lease: i64) -> Result<u64, StoreError> {
        let left = self
            .client
            .lease_client()
            .time_to_live(lease, None)
            .await
            .map_err(unavailable)?;
        Ok(now() + left.ttl().max(0) as u64 * 1000)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::unavailable("the backup", error))
}

/// The newest revision, linearizable.
async fn current(kv: &KvClient, root: &[u8]) -> Result<Revision, StoreError> {
    let response = kv
        .clone()
        .get(root, Some(GetOptions::new().with_count_only()))
        .await
        .map_err(unavailable)?;
    Ok(revision(response.header()))
}

fn revision(header: Option<&ResponseHeader>) -> Revision {
    model::ResourceVersion(header.map_or(0, ResponseHeader::revision) as u64)
}

fn entry(kv: KeyValue) -> Entry {
    let (created, modified) = (kv.create_revision() as u64, kv.mod_revision() as u64);
    let (key, value) = kv.into_key_value();
    let revision = model::ResourceVersion;
    Entry {
        key: key.into(),
        value: value.into(),
        created: revision(created),
        modified: revision(modified),
    }
}

/// The least key behind all that begin with `prefix`; a zero byte, to etcd, is the end of all keys.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

fn unavailable(error: Error) -> StoreError {
    StoreError::unavailable("etcd", error)
}

// etcd gives its errors no numbers, only these words.
fn is_compacted(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("required revision has been compacted"))
}

fn is_future(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("required revision is a future revision"))
}

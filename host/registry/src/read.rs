//! Get and list, from the watch cache; as fresh as asked.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use client::{Collection, List, ListOptions, ReadVersion, Target};
use model::{Caller, Failure, Object, ResourceVersion};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Registry;
use crate::cache::{Cache, Place, Snapshot};
use crate::convert;
use crate::resource::{Door, Resource};
use crate::select::Filter;

pub(crate) async fn get(
    registry: &Registry,
    caller: &Caller,
    target: &Target,
    at: ReadVersion,
) -> Result<Arc<Object>, Failure> {
    let resource = registry.find(&target.gvr)?;
    registry.authorize(caller, "get", target).await?;
    let object = find(registry, &resource, &target.namespace, &target.name, at).await?;
    let object = convert::serve(registry, &resource, object).await?;
    match target.subresource.as_str() {
        "" => figured(registry, &resource, object),
        name => match resource.find_door(name) {
            Some(Door::Part(..)) => figured(registry, &resource, object),
            Some(Door::Scale(paths)) => crate::scale::of(&resource, &object, &paths).map(Arc::new),
            Some(Door::Act(_) | Door::Stream) => Err(Failure::MethodNotAllowed {
                verb: "get".into(),
                resource: resource.kind.group_resource(),
            }),
            None => Err(Failure::NoSuchResource {
                asked: format!("{}/{name}", target.gvr),
            }),
        },
    }
}

/// One object, in the stored version.
pub(crate) async fn find(
    registry: &Registry,
    resource: &Resource,
    namespace: &str,
    name: &str,
    at: ReadVersion,
) -> Result<Arc<Object>, Failure> {
    let cache = registry.cache(resource).await?;
    let missing = || Failure::NotFound(cache.key(namespace, name));
    match at {
        // The store is asked for the truth; the cache gives the bytes where it has them.
        ReadVersion::Latest => newest(registry, &cache, namespace, name).await?.ok_or_else(missing),
        ReadVersion::Any => cache.get(namespace, name).ok_or_else(missing),
        ReadVersion::AtLeast(version) => {
            cache.reach(version).await?;
            cache.get(namespace, name).ok_or_else(missing)
        }
        ReadVersion::Exactly(_) => Err(Failure::BadRequest("resourceVersionMatch is forbidden for get".into())),
    }
}

/// The object as the store has it now.
pub(crate) async fn newest(
    registry: &Registry,
    cache: &Cache,
    namespace: &str,
    name: &str,
) -> Result<Option<Arc<Object>>, Failure> {
    let key = cache.store_key(namespace, name);
    let read = registry.inner.store.get(key.as_bytes(), None).await?;
    read.entry.map(|entry| cache.object(&entry)).transpose()
}

/// Lays figures that are never stored over the status.
fn figured(registry: &Registry, resource: &Resource, object: Arc<Object>) -> Result<Arc<Object>, Failure> {
    let Some(figures) = registry.inner.options.figures.get(&resource.storage.resource) else {
        return Ok(object);
    };
    let Some(fields) = figures.of(&object) else {
        return Ok(object);
    };
    let mut value = object.value();
    let status = value
        .as_object_mut()
        .map(|o| o.entry("status").or_insert_with(|| Value::Object(Default::default())));
    if let Some(status) = status.and_then(Value::as_object_mut) {
        status.extend(fields);
    }
    Object::from_value(object.gvk.clone(), object.key.clone(), &value).map(Arc::new)
}

/// Where a paged list goes on. Kubernetes' own shape, so that tools that peek into tokens find what they expect.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    v: String,
    /// -1: at whatever version there is by now.
    rv: i64,
    /// The first key that may follow.
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

impl Token {
    fn text(version: ResourceVersion, last: &str) -> String {
        let token = Self {
            v: TOKEN_VERSION.into(),
            rv: version.0 as i64,
            start: format!("{last}\0"),
        };
        BASE64.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let bad = |why: &str| Failure::BadRequest(format!("continue key is not valid: {why}"));
        let bytes = BASE64
            .decode(text.trim_end_matches('='))
            .map_err(|e| bad(&e.to_string()))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|e| bad(&e.to_string()))?;
        if token.v != TOKEN_VERSION {
            return Err(bad(&format!(
                "server does not recognize this encoded version {:?}",
                token.v
            )));
        }
        if token.rv == 0 || token.start.is_empty() || token.start.contains("..") {
            return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        Ok(token)
    }
}

pub(crate) async fn list(
    registry: &Registry,
    caller: &Caller,
    of: &Collection,
    options: &ListOptions,
) -> Result<List, Failure> {
    let resource = registry.find(&of.gvr)?;
    let filter = Filter::new(&resource, of.namespace.as_deref(), &options.labels, &options.fields)?;
    // A list that can only be one object is a question about that object (kube-apiserver authorises it so).
    let target = Target::new(
        of.gvr.clone(),
        of.namespace.as_deref().unwrap_or_default(),
        filter.name().unwrap_or_default(),
    );
    registry.authorize(caller, "list", &target).await?;
    let cache = registry.cache(&resource).await?;

    let (objects, version, start) = if options.continue_token.is_empty() {
        let (objects, version) = state(&cache, options.version).await?;
        (objects, version, String::new())
    } else {
        let token = Token::parse(&options.continue_token)?;
        if options.version != ReadVersion::Latest {
            let why = "specifying resource version is not allowed when using continue";
            return Err(Failure::BadRequest(why.into()));
        }
        let (objects, version) = if token.rv < 0 {
            cache.catch_up().await?;
            cache.snapshot()
        } else {
            let version = ResourceVersion(token.rv as u64);
            let gone = |failure| {
                match failure {
                Failure::Expired(_) => Failure::Expired(
                    "The provided continue parameter is too old to display a consistent list result. You must start a new list without the continue parameter.".into(),
                ),
                other => other,
            }
            };
            (cache.at(version).await.map_err(gone)?, version)
        };
        (objects, version, token.start)
    };

    let mut page = page(&cache, &objects, &filter, &start, options.limit);
    if let Some(last) = &page.last {
        cache.keep_page(version, &objects);
        page.token = Token::text(version, last);
    }
    let mut items = Vec::with_capacity(page.items.len());
    for object in page.items {
        let object = convert::serve(registry, &resource, object).await?;
        items.push(figured(registry, &resource, object)?);
    }
    Ok(List {
        version,
        items,
        continue_token: page.token,
        remaining: page.remaining,
    })
}

/// The state that is fresh enough, and its version.
async fn state(cache: &Cache, at: ReadVersion) -> Result<(Snapshot, ResourceVersion), Failure> {
    match at {
        ReadVersion::Any => {}
        ReadVersion::Latest => cache.catch_up().await?,
        ReadVersion::AtLeast(version) => cache.reach(version).await?,
        ReadVersion::Exactly(version) => {
            cache.reach(version).await?;
            return Ok((cache.at(version).await?, version));
        }
    }
    Ok(cache.snapshot())
}

struct Page {
    items: Vec<Arc<Object>>,
    /// The place of the last item, if more follow.
    last: Option<Place>,
    token: String,
    remaining: Option<u64>,
}

fn page(cache: &Cache, objects: &Snapshot, filter: &Filter, start: &str, limit: u64) -> Page {
    let limit = if limit == 0 {
        usize::MAX
    } else {
        usize::try_from(limit).unwrap_or(usize::MAX)
    };
    let prefix = filter.namespace.as_ref().map(|n| format!("{n}/")).unwrap_or_default();
    let from: Place = if start > prefix.as_str() {
        start.into()
    } else {
        prefix.as_str().into()
    };
    let mut rest = objects
        .range(from..)
        .take_while(|(place, _)| place.starts_with(prefix.as_str()));
    let whole = filter.is_whole();
    let mut page = Page {
        items: Vec::new(),
        last: None,
        token: String::new(),
        remaining: None,
    };
    let mut last = None;
    for (place, entry) in rest.by_ref() {
        if !whole && !filter.matches(entry, &cache.picker) {
            continue;
        }
        if page.items.len() == limit {
            // One more that matches: there is another page. How many is told only where it need not be searched for.
            page.last = last;
            page.remaining = whole.then(|| 1 + rest.count() as u64);
            return page;
        }
        page.items.push(entry.object.clone());
        last = Some(place.clone());
    }
    page
}

//! One request from its head to its response.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body::Body;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use roadrunner_runtime::{Trace, Variables};
use tracing::{Instrument, Span, field};

use crate::admission::{Admission, Charge, Client, Place};
use crate::catalog::Catalog;
use crate::invoke::Target;
use crate::limits::Limits;
use crate::link::{Active, Link, Progress};
use crate::metrics::{Metrics, Tally};
use crate::outgoing::{Content, Outgoing};
use crate::receive;
use crate::refusal::Refusal;
use crate::runners::Runners;
use crate::trace::{self, TRACEPARENT};
use crate::variables;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// What all connections of a gateway share.
pub(crate) struct Shared {
    pub(crate) limits: Arc<Limits>,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) runners: Arc<Runners>,
    /// Set when a shutdown begins.
    pub(crate) draining: AtomicBool,
}

/// What a request holds until its response is sent.
pub(crate) struct Held {
    _active: Active,
    _place: Option<Place>,
    _charge: Option<Charge>,
}

/// What a path means.
enum Route<'r> {
    Alive,
    Ready,
    Metrics,
    Workflow(&'r str),
    Function(&'r str),
}

/// Who asks, and the request's own span.
#[derive(Clone, Copy)]
struct Asked {
    client: Client,
    trace: Trace,
}

/// A response before it is on its way.
struct Answer {
    status: StatusCode,
    content: Content,
    headers: HeaderMap,
    place: Option<Place>,
    charge: Option<Charge>,
    close: bool,
}

impl Answer {
    fn new(status: StatusCode, content: Content, kind: HeaderValue) -> Self {
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
        Self { status, content, headers, place: None, charge: None, close: false }
    }

    fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self::new(status, Content::Text(text.into()), TEXT)
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let (allow, retry_after) = (refusal.allow, refusal.retry_after());
        let mut answer = Self::text(refusal.status, refusal.message + "\n");
        if let Some(allow) = allow {
            answer.headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(seconds) = retry_after {
            answer.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        Self { close: refusal.close, ..answer }
    }
}

/// Answers one request.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    link: Arc<Link>,
    client: Client,
    request: Request<Incoming>,
) -> Result<Response<Outgoing<Held>>, Infallible> {
    let active = link.begin();
    let (caller, trace) = trace::of(request.headers());
    let span = span(&request, client, &caller, &trace);
    let mut tally = Tally::new(&shared.metrics);
    let (head, mut body) = request.into_parts();
    let asked = Asked { client, trace };
    let answer = answer(&shared, &link, asked, &head, &mut body, &mut tally);
    let mut answer = answer.instrument(span.clone()).await.unwrap_or_else(Answer::from);
    // Behind a chunked body there is no next request: where it ended has had several readings among
    // those who pass requests on. What was not read is not waited for.
    answer.close |= !body.is_end_stream() || head.headers.contains_key(header::TRANSFER_ENCODING);
    tally.ended(answer.status.as_u16());
    span.record("status", answer.status.as_u16());
    if answer.close && head.version < Version::HTTP_2 {
        link.unread.store(true, Ordering::Relaxed);
        answer.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Ok(value) = HeaderValue::from_str(&trace.to_string()) {
        answer.headers.insert(TRACEPARENT, value);
    }
    let progress = Progress::out();
    link.watch(&progress);
    let held = Held { _active: active, _place: answer.place, _charge: answer.charge };
    let mut response = Response::new(Outgoing::new(answer.content, progress, held));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    Ok(response)
}

fn span(request: &Request<Incoming>, client: Client, caller: &Trace, own: &Trace) -> Span {
    tracing::info_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
        client = %client.address(),
        trace_id = own.trace_text().map(field::display),
        span_id = own.span_text().map(field::display),
        parent_id = caller.span_text().map(field::display),
        status = field::Empty,
    )
}

async fn answer(
    shared: &Arc<Shared>,
    link: &Link,
    asked: Asked,
    head: &Parts,
    body: &mut Incoming,
    tally: &mut Tally,
) -> Result<Answer, Refusal> {
    check(link, head)?;
    let route = route(head)?;
    match route {
        Route::Alive => {
            tally.target("/healthz".into());
            Ok(Answer::text(StatusCode::OK, "alive\n"))
        }
        Route::Ready => {
            tally.target("/readyz".into());
            if shared.draining.load(Ordering::Relaxed) {
                return Err(Refusal::overloaded("the gateway is shutting down"));
            }
            Ok(Answer::text(StatusCode::OK, "ready\n"))
        }
        Route::Metrics => {
            tally.target("/metrics".into());
            let page = shared.metrics.page(&shared.admission.gauges());
            Ok(Answer::new(StatusCode::OK, Content::Text(page), METRICS))
        }
        Route::Workflow(_) | Route::Function(_) => {
            let target = find(shared, &route)?;
            tally.target(target.label());
            if head.uri.query().is_some() {
                let message = "functions get no query; put what they need into the body";
                return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
            }
            let variables = variables::of(&head.headers, target.first())?;
            invoke(shared, link, asked, target, variables, body).await
        }
    }
}

/// Refuses what has two meanings, of which somebody on the way may have believed the other.
fn check(link: &Link, head: &Parts) -> Result<(), Refusal> {
    let number = link.requests.fetch_add(1, Ordering::Relaxed) + 1;
    if link.contradiction.load(Ordering::Relaxed) == number {
        let message = "the request says in two ways how long its body is";
        return Err(Refusal::malformed(message));
    }
    let hosts = head.headers.get_all(header::HOST).iter().count();
    if hosts > 1 || (head.version == Version::HTTP_11 && hosts != 1) {
        return Err(Refusal::malformed("the request has no `Host`, or several"));
    }
    Ok(())
}

fn route(head: &Parts) -> Result<Route<'_>, Refusal> {
    let path = head.uri.path();
    let (route, allow) = match path {
        "/healthz" => (Route::Alive, "GET, HEAD"),
        "/readyz" => (Route::Ready, "GET, HEAD"),
        "/metrics" => (Route::Metrics, "GET, HEAD"),
        _ => match (path.strip_prefix("/workflows/"), path.strip_prefix("/functions/")) {
            (Some(name), _) => (Route::Workflow(name), "POST"),
            (_, Some(name)) => (Route::Function(name), "POST"),
            _ => return Err(Refusal::unknown("there is nothing at this path")),
        },
    };
    let allowed = match head.method {
        Method::GET | Method::HEAD => allow != "POST",
        Method::POST => allow == "POST",
        _ => false,
    };
    if allowed { Ok(route) } else { Err(Refusal::method(allow)) }
}

fn find(shared: &Shared, route: &Route<'_>) -> Result<Target, Refusal> {
    match route {
        Route::Workflow(name) => {
            let workflow = shared.catalog.workflow(name).map(Target::Workflow);
            workflow.ok_or_else(|| Refusal::unknown("there is no workflow of this name"))
        }
        Route::Function(name) => {
            let function = shared.catalog.function(name);
            let found = function.map(|(workflow, name)| Target::Function(workflow, name));
            found.ok_or_else(|| {
                let message = "there is no function of this name, or several workflows have one; \
                    ask for WORKFLOW.FUNCTION";
                Refusal::unknown(message)
            })
        }
        _ => Err(Refusal::unknown("there is nothing at this path")),
    }
}

async fn invoke(
    shared: &Arc<Shared>,
    link: &Link,
    Asked { client, trace }: Asked,
    target: Target,
    variables: Variables,
    body: &mut Incoming,
) -> Result<Answer, Refusal> {
    let place = shared.admission.request(client)?;
    if shared.admission.queue_is_full() {
        return Err(Refusal::overloaded("too many requests wait to run"));
    }
    let mut charge = shared.admission.charge();
    let received = receive::receive(body, &target, &shared.limits, link, &mut charge).await?;
    let running = shared.admission.run().await?;
    let (metrics, span) = (Arc::clone(&shared.metrics), Span::current());
    // Everything that counts goes along: when the client leaves, this task ends, and the function
    // runs on to its end or deadline, still counted. Its response is dropped there.
    let ran = shared.runners.run(move || {
        let _entered = span.entered();
        let ran = target.run(received, trace, variables, &metrics);
        drop(running);
        (ran, target, place, charge)
    });
    let (ran, target, place, mut charge) = ran.await.ok_or_else(Refusal::panicked)?;
    let response = Content::Payload(ran?);
    charge.set(response.len());
    // The manifest's types are values of headers.
    let kind = target.last().content_type.as_deref().and_then(|it| HeaderValue::from_str(it).ok());
    let answer = Answer::new(StatusCode::OK, response, kind.unwrap_or(BYTES));
    Ok(Answer { place: Some(place), charge: Some(charge), ..answer })
}

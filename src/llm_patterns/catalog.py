"""The one list of chapters: the patterns, what question each answers and who needs it, and what stands beside them.

>>> retry = pattern("retry_with_budget")
>>> retry.title, retry.priorities.agents.value
('Retry with Budget', 'Required')
>>> [each.title for each in patterns(Category.RESILIENCE)][:2]
['Graceful Degradation', 'Retry with Budget']

The book's contents, the README's table and each chapter's first lines are made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import NamedTuple

from llm_patterns.errors import LLMPatternsError

__all__ = [
    "Category",
    "Companion",
    "Pattern",
    "Priorities",
    "Priority",
    "Related",
    "Section",
    "UnknownPattern",
    "chapter",
    "companions",
    "pattern",
    "patterns",
]


class Category(StrEnum):
    """What a group of patterns is for. Its value is the name of its folder and package."""

    RESILIENCE = "resilience"
    COST_CONTROL = "cost_control"
    OBSERVABILITY = "observability"
    TESTING = "testing"
    SAFETY = "safety"
    DATA_PIPELINE = "data_pipeline"
    ORCHESTRATION = "orchestration"
    PERFORMANCE = "performance"

    @property
    def label(self) -> str:
        """The category as a heading: `Cost Control`."""
        return self.value.replace("_", " ").title()


class Priority(StrEnum):
    """How much a type of system needs a pattern, from most to least; then the return on effort."""

    CRITICAL = "Critical"
    """Without it the system can break or corrupt data."""
    REQUIRED = "Required"
    """Without it somebody is paged."""
    RECOMMENDED = "Recommended"
    """Without it a gap shows within months."""
    OPTIONAL = "Optional"
    """Only where the problem exists at all."""
    HIGH_ROI = "High ROI"
    """Not necessary, and pays back quickly."""
    LOW_ROI = "Low ROI"
    """Applies, and gains little."""
    NA = "N/A"
    """Does not apply."""


class Priorities(NamedTuple):
    """One pattern's priority for each type of system."""

    rag: Priority
    agents: Priority
    streaming: Priority
    batch: Priority


class Related(NamedTuple):
    """A pattern to read next; `why` continues the sentence that its title begins."""

    slug: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One pattern. Its module, test, chapter and benchmark carry the name in `path`."""

    slug: str
    title: str
    category: Category
    question: str
    """What it answers, in a sentence."""
    priorities: Priorities
    related: tuple[Related, ...]
    published: bool = False
    """Whether the module and its chapter are there to use and read."""

    @property
    def path(self) -> str:
        """Where its files are under each folder: `resilience/retry_with_budget`."""
        return f"{self.category}/{self.slug}"


class Section(StrEnum):
    """Chapters beside the patterns. Its value is the name of their folder."""

    TOOLKIT = "toolkit"
    """A utility that every pattern's user needs, in `llm_patterns.toolkit`."""
    GUIDES = "guides"
    """A recipe: patterns at work together, and one taken out at a time."""

    @property
    def label(self) -> str:
        """The section as a heading."""
        return {"toolkit": "Toolkit", "guides": "Recipe"}[self.value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """A chapter beside the patterns: a shared utility, or a recipe that combines them."""

    slug: str
    title: str
    section: Section
    question: str
    related: tuple[Related, ...]
    published: bool = False

    @property
    def path(self) -> str:
        """Where its chapter is in the book: `toolkit/cost_tracker`."""
        return f"{self.section}/{self.slug}"


class UnknownPattern(LLMPatternsError):
    """No chapter has this slug; `near` holds those that are spelled like it."""

    def __init__(self, slug: str) -> None:
        self.slug = slug
        known = [*_BY_SLUG, *_COMPANIONS_BY_SLUG]
        self.near = tuple(get_close_matches(slug.lower().replace("-", "_"), known, n=3))
        remedy = f"Near: {', '.join(self.near)}." if self.near else "patterns() lists them all."
        super().__init__(f"No pattern is called {slug!r}. {remedy}")


def pattern(slug: str) -> Pattern:
    """The pattern with this slug.

    Raises:
        UnknownPattern: if there is none; the message names near matches.
    """
    try:
        return _BY_SLUG[slug]
    except KeyError:
        raise UnknownPattern(slug) from None


def chapter(slug: str) -> Pattern | Companion:
    """The pattern or the companion with this slug.

    >>> chapter("cost_tracker").path
    'toolkit/cost_tracker'

    Raises:
        UnknownPattern: if there is neither; the message names near matches.
    """
    return _COMPANIONS_BY_SLUG[slug] if slug in _COMPANIONS_BY_SLUG else pattern(slug)


def companions(section: Section | None = None) -> tuple[Companion, ...]:
    """All chapters beside the patterns in the book's order, or those of one section."""
    return tuple(each for each in _COMPANIONS if section in (None, each.section))


def patterns(category: Category | None = None) -> tuple[Pattern, ...]:
    """All patterns in the book's order, or those of one category."""
    return tuple(each for each in _PATTERNS if category in (None, each.category))


CRITICAL, REQUIRED, RECOMMENDED, OPTIONAL, HIGH_ROI, LOW_ROI, NA = Priority

_PATTERNS = (  # priorities: RAG, agents, streaming, batch
    Pattern(
        slug="graceful_degradation",
        title="Graceful Degradation",
        category=Category.RESILIENCE,
        question=(
            "When the best answer cannot be had in time, which lesser answer is still honest, "
            "and who notices how often it was given?"
        ),
        priorities=Priorities(REQUIRED, REQUIRED, CRITICAL, RECOMMENDED),
        related=(
            Related("circuit_breaker", "says at once that a tier is down"),
            Related("multi_provider_failover", "comes before it: the same quality from elsewhere"),
            Related("semantic_caching", "supplies a tier that needs no provider at all"),
            Related("latency_budget", "decides how much time each tier may take from the next"),
            Related("output_quality_monitoring", "measures what the lesser tiers are worth"),
        ),
        published=True,
    ),
    Pattern(
        slug="retry_with_budget",
        title="Retry with Budget",
        category=Category.RESILIENCE,
        question=(
            "A call failed: may this process try again without helping to keep the provider down?"
        ),
        priorities=Priorities(RECOMMENDED, REQUIRED, REQUIRED, REQUIRED),
        related=(
            Related("circuit_breaker", "stops first attempts too, once failure is the rule"),
            Related("multi_provider_failover", "sends the call where it may succeed"),
            Related("graceful_degradation", "answers the user when the budget says no"),
            Related("latency_budget", "sets the deadline that no retry may cross"),
            Related("concurrent_request_management", "keeps first attempts under the limit"),
        ),
        published=True,
    ),
    Pattern(
        slug="multi_provider_failover",
        title="Multi-Provider Failover",
        category=Category.RESILIENCE,
        question=(
            "The provider fails: which other one takes this request, how much load can it bear, "
            "and when do we go back?"
        ),
        priorities=Priorities(RECOMMENDED, HIGH_ROI, CRITICAL, RECOMMENDED),
        related=(
            Related("circuit_breaker", "decides that a provider is down"),
            Related("retry_with_budget", "comes first for a failure that is short"),
            Related("graceful_degradation", "takes over when no provider is left"),
            Related("model_routing", "chooses by price and quality where this chooses by health"),
            Related("eval_harness", "shows whether the other model gives answers you can ship"),
        ),
        published=True,
    ),
    Pattern(
        slug="circuit_breaker",
        title="Circuit Breaker",
        category=Category.RESILIENCE,
        question=(
            "Is this dependency too sick to be called at all, and how do we find out that it is "
            "well without hurting it?"
        ),
        priorities=Priorities(RECOMMENDED, REQUIRED, CRITICAL, OPTIONAL),
        related=(
            Related("retry_with_budget", "handles failures too few to open the circuit"),
            Related("multi_provider_failover", "gives the refused calls somewhere to go"),
            Related("graceful_degradation", "gives the refused calls something to answer"),
            Related("latency_budget", "turns slowness into a failure that the breaker can count"),
        ),
        published=True,
    ),
    Pattern(
        slug="token_budget_middleware",
        title="Token Budget Middleware",
        category=Category.COST_CONTROL,
        question=(
            "How is a key, a team or the company kept from spending more than it was given, "
            "before the call is made?"
        ),
        priorities=Priorities(REQUIRED, REQUIRED, RECOMMENDED, REQUIRED),
        related=(
            Related("cost_dashboard", "shows where the spending goes that this one stops"),
            Related("agent_loop_guards", "ends the loop that would burn the budget"),
            Related("concurrent_request_management", "holds the same tokens to a rate"),
        ),
    ),
    Pattern(
        slug="semantic_caching",
        title="Semantic Caching",
        category=Category.COST_CONTROL,
        question="When may a new question get an old answer, and how often is that answer wrong?",
        priorities=Priorities(HIGH_ROI, LOW_ROI, NA, HIGH_ROI),
        related=(
            Related("embedding_refresh", "changes the vectors that similarity is measured with"),
            Related("eval_harness", "measures the wrong hits that a threshold lets through"),
            Related("cost_dashboard", "shows what the hits save"),
        ),
    ),
    Pattern(
        slug="model_routing",
        title="Model Routing",
        category=Category.COST_CONTROL,
        question=(
            "Which requests can a cheaper model answer, how do we know, and what quality was "
            "given up?"
        ),
        priorities=Priorities(RECOMMENDED, HIGH_ROI, RECOMMENDED, HIGH_ROI),
        related=(
            Related("eval_harness", "supplies the quality numbers a route is chosen by"),
            Related("multi_provider_failover", "routes by health where this routes by price"),
            Related("cost_dashboard", "shows whether the saving arrived"),
            Related("context_management", "keeps the cached prefix that a switch of models loses"),
        ),
    ),
    Pattern(
        slug="cost_dashboard",
        title="Cost Dashboard",
        category=Category.COST_CONTROL,
        question=(
            "Where does the money go, by feature, prompt, customer and model, and does the sum "
            "equal the invoice?"
        ),
        priorities=Priorities(RECOMMENDED, RECOMMENDED, RECOMMENDED, RECOMMENDED),
        related=(
            Related("token_budget_middleware", "enforces with the meter that this one reads"),
            Related("structured_tracing", "carries the tags that spending is attributed by"),
            Related("prompt_version_registry", "names the prompt version that made the bill rise"),
        ),
    ),
    Pattern(
        slug="structured_tracing",
        title="Structured Tracing",
        category=Category.OBSERVABILITY,
        question=(
            "One answer was wrong last night: which step, which prompt version, which document, "
            "at what cost?"
        ),
        priorities=Priorities(REQUIRED, CRITICAL, REQUIRED, RECOMMENDED),
        related=(
            Related("prompt_version_registry", "gives the version id that every span carries"),
            Related("output_quality_monitoring", "finds the answers whose trace is worth reading"),
            Related("cost_dashboard", "adds up the spans"),
        ),
    ),
    Pattern(
        slug="output_quality_monitoring",
        title="Output Quality Monitoring",
        category=Category.OBSERVABILITY,
        question=(
            "Every call returns 200: are the answers as good as last month, for every prompt "
            "and every customer?"
        ),
        priorities=Priorities(REQUIRED, REQUIRED, RECOMMENDED, REQUIRED),
        related=(
            Related("online_eval_monitoring", "puts an error bar on the same question"),
            Related("drift_detection", "says whether the inputs or the model moved"),
            Related("structured_tracing", "leads from a bad score to its cause"),
        ),
    ),
    Pattern(
        slug="drift_detection",
        title="Drift Detection",
        category=Category.OBSERVABILITY,
        question=(
            "Did the inputs, the outputs or the model change, since when, and is it us or them?"
        ),
        priorities=Priorities(REQUIRED, RECOMMENDED, OPTIONAL, REQUIRED),
        related=(
            Related("output_quality_monitoring", "tells whether the change did harm"),
            Related("prompt_version_registry", "rules out, or in, a change of our own"),
            Related("embedding_refresh", "is due when the documents have moved"),
        ),
    ),
    Pattern(
        slug="prompt_diffing",
        title="Prompt Diffing",
        category=Category.OBSERVABILITY,
        question=(
            "What changed between two prompt versions, how risky is it, and is that why quality "
            "moved?"
        ),
        priorities=Priorities(RECOMMENDED, RECOMMENDED, OPTIONAL, RECOMMENDED),
        related=(
            Related("prompt_version_registry", "keeps the versions that are compared"),
            Related("regression_testing", "measures what the difference does"),
            Related("prompt_rollout_testing", "lets a risky difference out a little at a time"),
        ),
    ),
    Pattern(
        slug="prompt_version_registry",
        title="Prompt Version Registry",
        category=Category.OBSERVABILITY,
        question=(
            "Exactly which prompt, model and settings gave this answer, and can yesterday's be "
            "back in a minute?"
        ),
        priorities=Priorities(REQUIRED, REQUIRED, RECOMMENDED, REQUIRED),
        related=(
            Related("prompt_diffing", "explains what a new version changes"),
            Related("prompt_rollout_testing", "decides when the pointer moves"),
            Related("structured_tracing", "records the version on every call"),
        ),
    ),
    Pattern(
        slug="online_eval_monitoring",
        title="Online Eval Monitoring",
        category=Category.OBSERVABILITY,
        question=(
            "What share of real answers is good right now, when the judge is wrong some of the "
            "time?"
        ),
        priorities=Priorities(REQUIRED, REQUIRED, RECOMMENDED, REQUIRED),
        related=(
            Related("eval_harness", "measures the judge before it is trusted"),
            Related("output_quality_monitoring", "watches all traffic where this judges a sample"),
            Related("prompt_rollout_testing", "reads its verdict from these scores"),
        ),
    ),
    Pattern(
        slug="eval_harness",
        title="Eval Harness",
        category=Category.TESTING,
        question="How good is the system, plus or minus what, on which slices, and at what price?",
        priorities=Priorities(REQUIRED, REQUIRED, RECOMMENDED, REQUIRED),
        related=(
            Related("regression_testing", "decides on what the harness measures"),
            Related("online_eval_monitoring", "asks the same of live traffic"),
            Related("adversarial_inputs", "adds the cases that mean harm"),
        ),
    ),
    Pattern(
        slug="regression_testing",
        title="Regression Testing",
        category=Category.TESTING,
        question="May this change be merged: did anything that worked stop working, beyond noise?",
        priorities=Priorities(REQUIRED, REQUIRED, RECOMMENDED, REQUIRED),
        related=(
            Related("eval_harness", "runs both sides"),
            Related("snapshot_testing", "guards what has no expected answer"),
            Related("prompt_rollout_testing", "checks on live traffic what passed here"),
        ),
    ),
    Pattern(
        slug="adversarial_inputs",
        title="Adversarial Inputs",
        category=Category.TESTING,
        question=(
            "What happens when the input is hostile, broken or strange, and how sure are we of "
            "the rate?"
        ),
        priorities=Priorities(RECOMMENDED, CRITICAL, RECOMMENDED, OPTIONAL),
        related=(
            Related("prompt_injection_defense", "is what these inputs put to the test"),
            Related("agent_loop_guards", "bounds the cost of an attack that succeeds"),
            Related("structured_output_validation", "catches the malformed answers"),
        ),
    ),
    Pattern(
        slug="snapshot_testing",
        title="Snapshot Testing",
        category=Category.TESTING,
        question=(
            "Did an output change in a way that matters, when no expected answer was ever "
            "written down?"
        ),
        priorities=Priorities(RECOMMENDED, RECOMMENDED, OPTIONAL, RECOMMENDED),
        related=(
            Related("regression_testing", "decides where expected answers exist"),
            Related("prompt_diffing", "shows the change of prompt behind a change of output"),
            Related("structured_output_validation", "fixes the part that may never vary"),
        ),
    ),
    Pattern(
        slug="prompt_rollout_testing",
        title="Prompt Rollout Testing",
        category=Category.TESTING,
        question=(
            "Is the new prompt at least as good on live traffic, and can it be stopped the "
            "moment it is not?"
        ),
        priorities=Priorities(REQUIRED, REQUIRED, RECOMMENDED, HIGH_ROI),
        related=(
            Related("prompt_version_registry", "holds the pointer that a rollback moves"),
            Related("online_eval_monitoring", "supplies the outcome that the test compares"),
            Related("regression_testing", "comes first, on stored cases"),
        ),
    ),
    Pattern(
        slug="structured_output_validation",
        title="Structured Output Validation",
        category=Category.SAFETY,
        question=(
            "Is this output really the typed value the code expects, and after a repair, still "
            "what the model meant?"
        ),
        priorities=Priorities(REQUIRED, CRITICAL, REQUIRED, REQUIRED),
        related=(
            Related("tool_call_reliability", "applies it to the arguments of a tool"),
            Related("retry_with_budget", "pays for the second try after an invalid answer"),
            Related("output_quality_monitoring", "watches the share that had to be repaired"),
        ),
    ),
    Pattern(
        slug="pii_detection",
        title="PII Detection",
        category=Category.SAFETY,
        question=(
            "Which personal data leaves our boundary, how much is missed, and can it be put "
            "back for the right person only?"
        ),
        priorities=Priorities(REQUIRED, REQUIRED, REQUIRED, REQUIRED),
        related=(
            Related("structured_tracing", "is the log that must not hold it"),
            Related("prompt_injection_defense", "stops the text that tries to carry it out"),
            Related("semantic_caching", "must never serve one person's data to another"),
        ),
    ),
    Pattern(
        slug="prompt_injection_defense",
        title="Prompt Injection Defense",
        category=Category.SAFETY,
        question="Hostile text will reach the model: what is the worst it can make the system do?",
        priorities=Priorities(REQUIRED, CRITICAL, REQUIRED, RECOMMENDED),
        related=(
            Related("adversarial_inputs", "measures how often it gets through"),
            Related("human_in_the_loop", "approves the actions that are left to a person"),
            Related("tool_call_reliability", "holds the list of tools a turn may call"),
        ),
    ),
    Pattern(
        slug="human_in_the_loop",
        title="Human-in-the-Loop",
        category=Category.SAFETY,
        question=(
            "Which actions must a person decide, will they really look, and does the approved "
            "thing happen exactly once?"
        ),
        priorities=Priorities(OPTIONAL, REQUIRED, NA, OPTIONAL),
        related=(
            Related("state_checkpointing", "keeps the pause alive through a restart"),
            Related("prompt_injection_defense", "raises the actions that need a person"),
            Related("agent_loop_guards", "hands over when the agent stops getting anywhere"),
        ),
    ),
    Pattern(
        slug="chunking_strategies",
        title="Chunking Strategies",
        category=Category.DATA_PIPELINE,
        question=(
            "Where is a document cut so that the passage with the answer can be found and "
            "nothing is lost?"
        ),
        priorities=Priorities(CRITICAL, OPTIONAL, NA, RECOMMENDED),
        related=(
            Related("embedding_refresh", "embeds again only the spans that changed"),
            Related("eval_harness", "measures the recall that a cut is judged by"),
            Related("context_management", "decides how many of the passages fit"),
        ),
    ),
    Pattern(
        slug="embedding_refresh",
        title="Embedding Refresh",
        category=Category.DATA_PIPELINE,
        question=(
            "Does every live vector come from the current text and the current model, and how "
            "is either changed without a gap?"
        ),
        priorities=Priorities(REQUIRED, OPTIONAL, NA, REQUIRED),
        related=(
            Related("chunking_strategies", "gives the spans their identity"),
            Related("index_maintenance", "keeps the index well after many writes"),
            Related("state_checkpointing", "resumes a refresh that was interrupted"),
        ),
    ),
    Pattern(
        slug="index_maintenance",
        title="Index Maintenance",
        category=Category.DATA_PIPELINE,
        question=(
            "Does the index still find what an exact search would, and when is a rebuild worth "
            "its price?"
        ),
        priorities=Priorities(REQUIRED, OPTIONAL, NA, RECOMMENDED),
        related=(
            Related("embedding_refresh", "is what wears the index"),
            Related("drift_detection", "sees the topics move away from the index"),
            Related("latency_budget", "feels a slow index first"),
        ),
    ),
    Pattern(
        slug="context_management",
        title="Context Management",
        category=Category.DATA_PIPELINE,
        question=(
            "What goes into the window each turn so that what matters stays, the request is "
            "valid and the bill stays linear?"
        ),
        priorities=Priorities(RECOMMENDED, REQUIRED, REQUIRED, OPTIONAL),
        related=(
            Related("token_budget_middleware", "counts what the window costs"),
            Related("chunking_strategies", "sets the size of what is retrieved into it"),
            Related("agent_loop_guards", "stops a conversation that only grows"),
        ),
    ),
    Pattern(
        slug="agent_loop_guards",
        title="Agent Loop Guards",
        category=Category.ORCHESTRATION,
        question=(
            "Is this agent still getting somewhere, and how much may it spend before it is "
            "stopped with its work intact?"
        ),
        priorities=Priorities(OPTIONAL, CRITICAL, RECOMMENDED, RECOMMENDED),
        related=(
            Related("token_budget_middleware", "holds the budget that the loop draws on"),
            Related("state_checkpointing", "keeps the partial work"),
            Related("tool_call_reliability", "removes the failing calls that loops are made of"),
        ),
    ),
    Pattern(
        slug="tool_call_reliability",
        title="Tool Call Reliability",
        category=Category.ORCHESTRATION,
        question=(
            "Does the tool exist, are the arguments allowed, and does the effect happen once, "
            "whatever fails?"
        ),
        priorities=Priorities(RECOMMENDED, CRITICAL, OPTIONAL, RECOMMENDED),
        related=(
            Related("structured_output_validation", "checks the arguments"),
            Related("retry_with_budget", "repeats the calls that may be repeated"),
            Related("agent_loop_guards", "ends the repairs that do not converge"),
        ),
    ),
    Pattern(
        slug="state_checkpointing",
        title="State Checkpointing",
        category=Category.ORCHESTRATION,
        question="After a crash at step eight of ten, what is run again, paid again or done twice?",
        priorities=Priorities(OPTIONAL, REQUIRED, NA, CRITICAL),
        related=(
            Related("tool_call_reliability", "makes a repeated effect harmless"),
            Related("human_in_the_loop", "waits for days on a checkpoint"),
            Related("request_batching", "needs it for jobs that take hours"),
        ),
    ),
    Pattern(
        slug="multi_agent_routing",
        title="Multi-Agent Routing",
        category=Category.ORCHESTRATION,
        question=(
            "Which agent gets this request, one, several or none, when a wrong choice looks "
            "like a success?"
        ),
        priorities=Priorities(OPTIONAL, CRITICAL, OPTIONAL, RECOMMENDED),
        related=(
            Related("model_routing", "asks the same question about models"),
            Related("agent_loop_guards", "stops requests that are handed round in circles"),
            Related("structured_tracing", "shows which agent did what"),
        ),
    ),
    Pattern(
        slug="latency_budget",
        title="Latency Budget",
        category=Category.PERFORMANCE,
        question=(
            "With the time that is left, should the next step run, run cheaper, be hedged or be "
            "skipped?"
        ),
        priorities=Priorities(REQUIRED, RECOMMENDED, CRITICAL, OPTIONAL),
        related=(
            Related("graceful_degradation", "says what to serve when time is short"),
            Related("retry_with_budget", "spends from the same deadline"),
            Related("concurrent_request_management", "makes the queue that time is lost in"),
        ),
    ),
    Pattern(
        slug="request_batching",
        title="Request Batching",
        category=Category.PERFORMANCE,
        question=(
            "Which calls travel together, and what happens to the rest when one of them is bad?"
        ),
        priorities=Priorities(HIGH_ROI, OPTIONAL, NA, CRITICAL),
        related=(
            Related("concurrent_request_management", "limits how many batches are under way"),
            Related("state_checkpointing", "remembers which items are done"),
            Related("latency_budget", "bounds how long an item may wait for company"),
        ),
    ),
    Pattern(
        slug="concurrent_request_management",
        title="Concurrent Request Management",
        category=Category.PERFORMANCE,
        question=(
            "How much may be in flight so that the whole quota is used, none is wasted and no "
            "caller starves?"
        ),
        priorities=Priorities(REQUIRED, REQUIRED, RECOMMENDED, CRITICAL),
        related=(
            Related("retry_with_budget", "adds load exactly when the limit is reached"),
            Related("request_batching", "gets more out of each request allowed"),
            Related("token_budget_middleware", "limits the money where this limits the rate"),
        ),
    ),
    Pattern(
        slug="streaming_backpressure",
        title="Streaming Backpressure",
        category=Category.PERFORMANCE,
        question=(
            "The reader is slower than the model, or gone: who slows down, who pays, and who "
            "frees the slot?"
        ),
        priorities=Priorities(OPTIONAL, OPTIONAL, CRITICAL, NA),
        related=(
            Related("latency_budget", "times the first token and the stalls after it"),
            Related("concurrent_request_management", "gets the slot back when a reader leaves"),
            Related("graceful_degradation", "ends a broken stream with something useful"),
        ),
    ),
)

_COMPANIONS = (
    Companion(
        slug="resilience_stack",
        title="The Resilience Stack",
        section=Section.GUIDES,
        question=(
            "Time-out, retry, breaker, failover and degradation on one call: in which order, and "
            "what does each wrong order cost?"
        ),
        related=(
            Related("retry_with_budget", "belongs to one provider, inside failover"),
            Related("circuit_breaker", "stands around each provider's time-out, and in one place"),
            Related("multi_provider_failover", "moves on when a target's own layers have given up"),
            Related("graceful_degradation", "is outermost: it alone always has an answer"),
            Related("test_fixtures", "take your own stack through such storms"),
        ),
        published=True,
    ),
    Companion(
        slug="cost_tracker",
        title="Cost Tracker",
        section=Section.TOOLKIT,
        question="What did each call cost, who caused it, and does the sum survive a restart?",
        related=(
            Related("cost_dashboard", "shows what is recorded here"),
            Related("token_budget_middleware", "refuses by the same arithmetic before the call"),
            Related("trace_logger", "has the call to which a cost belongs"),
        ),
        published=True,
    ),
    Companion(
        slug="trace_logger",
        title="Trace Logger",
        section=Section.TOOLKIT,
        question=(
            "What happened in that one call, step by step, and can the logging never be what "
            "breaks it?"
        ),
        related=(
            Related("structured_tracing", "is the pattern that decides what to record"),
            Related("pii_detection", "finds what the redaction hook must take out"),
            Related("latency_tracker", "keeps the distribution where this keeps the cases"),
        ),
        published=True,
    ),
    Companion(
        slug="test_fixtures",
        title="Test Fixtures",
        section=Section.TOOLKIT,
        question=(
            "How does a test suite meet outages, rate limits and slow streams in milliseconds, "
            "the same way each time?"
        ),
        related=(
            Related("eval_harness", "tests what a model says where this tests what code does"),
            Related("snapshot_testing", "compares answers that are not the same twice"),
            Related("retry_with_budget", "shows the same storms as experiments"),
        ),
        published=True,
    ),
    Companion(
        slug="latency_tracker",
        title="Latency Tracker",
        section=Section.TOOLKIT,
        question=(
            "How slow is the slowest hundredth, in constant memory, and how much time has this "
            "request left?"
        ),
        related=(
            Related("latency_budget", "decides by what is measured and carried here"),
            Related("graceful_degradation", "serves less when the time is short"),
            Related("trace_logger", "has the single slow call"),
        ),
        published=True,
    ),
    Companion(
        slug="prompt_registry",
        title="Prompt Registry",
        section=Section.TOOLKIT,
        question="Which prompt is in production, who put it there, and what was there before?",
        related=(
            Related("prompt_version_registry", "is the pattern around it: pins, audits, rollback"),
            Related("prompt_diffing", "says how risky the difference is"),
            Related("prompt_rollout_testing", "moves a label by evidence"),
        ),
        published=True,
    ),
)

_BY_SLUG = {each.slug: each for each in _PATTERNS}
_COMPANIONS_BY_SLUG = {each.slug: each for each in _COMPANIONS}

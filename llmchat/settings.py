"""All settings, flat: the environment goes in, constants come out. `.env.example` documents each variable.

A wrong or missing value stops the start with one line that names the setting and the remedy; what can only be judged
with Django loaded is judged by the system checks in `llmchat/checks.py`.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from llmchat.lib import logs
from llmchat.lib.env import EnvReader

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = "0.1.0"

ENV_FILE = Path(os.environ.get("ENV_FILE", BASE_DIR / ".env"))
env = EnvReader(dotenv=ENV_FILE)

# --- The place and the process -------------------------------------------------------------------------------------
DATA_DIR = Path(env.text("DATA_DIR", str(BASE_DIR / "var"))).expanduser().resolve()
try:
    DATA_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not os.access(DATA_DIR, os.W_OK | os.X_OK):
        raise PermissionError("it may not be written to")
except OSError as error:
    raise ImproperlyConfigured(
        f"DATA_DIR={DATA_DIR} cannot be used ({error.strerror or error}). Set it to a directory that may be written to."
    ) from None
HOST = env.text("HOST", "127.0.0.1")
PORT = env.integer("PORT", 8000, minimum=0, maximum=65535)
WEB_WORKERS = env.integer("WEB_WORKERS", 1, minimum=1, maximum=256)
SHUTDOWN_GRACE_SECONDS = env.seconds("SHUTDOWN_GRACE_SECONDS", 30.0)


def _kept_secret(path: Path) -> str:
    """A secret made once per data directory: the embedded default needs no setting, and sessions survive a restart."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        value = secrets.token_urlsafe(50)
        file.write(value)
    return value


SECRET_KEY = env.optional("SECRET_KEY") or _kept_secret(DATA_DIR / "secret_key")
DEBUG = env.boolean("DEBUG", default=False)
ALLOWED_HOSTS = env.items("ALLOWED_HOSTS", dict.fromkeys(["localhost", "127.0.0.1", "[::1]", HOST]))
CSRF_TRUSTED_ORIGINS = env.items("CSRF_TRUSTED_ORIGINS")
TRUSTED_PROXIES = env.integer("TRUSTED_PROXIES", 0, maximum=10)

# --- Database, cache, broker ---------------------------------------------------------------------------------------
DATABASES = {"default": env.database("DATABASE_URL", f"sqlite:///{DATA_DIR / 'llmchat.sqlite3'}")}
DATABASE_POOL_SIZE = env.integer("DATABASE_POOL_SIZE", 8, minimum=1, maximum=1000)
DATABASE_CONNECT_SECONDS = env.integer("DATABASE_CONNECT_SECONDS", 5, minimum=1, maximum=300)
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # Readers never wait for the writer (WAL); a transaction takes its lock at the start, so that two writers queue up
    # instead of failing half-way; a commit is on disk when it returns.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;",
    }
    # Tests use threads and processes, which cannot share a database in memory.
    DATABASES["default"]["TEST"] = {"NAME": str(DATA_DIR / f"test-{os.getpid()}.sqlite3")}
else:
    DATABASES["default"]["OPTIONS"] = {
        **DATABASES["default"].get("OPTIONS", {}),
        "connect_timeout": DATABASE_CONNECT_SECONDS,
        "pool": {
            "min_size": 1,
            "max_size": DATABASE_POOL_SIZE,
            "timeout": DATABASE_CONNECT_SECONDS,
            # Its pauses double with each failure: without a bound, they were as long as the outage once it was over.
            "reconnect_timeout": DATABASE_CONNECT_SECONDS,
        },
    }
    # A request may run on any thread; the pool, not the thread, keeps connections open, and gives out none that died.
    DATABASES["default"]["CONN_MAX_AGE"] = 0
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.url("REDIS_URL", schemes={"redis", "rediss", "unix"})
if REDIS_URL:
    CACHES: dict[str, dict[str, Any]] = {
        "default": {
            "BACKEND": "llmchat.lib.caches.SharedRedisCache",
            "LOCATION": REDIS_URL,
            "KEY_PREFIX": "llmchat",
            "OPTIONS": {"socket_timeout": 2, "socket_connect_timeout": 2},
        }
    }
else:
    CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 100_000}}
    }

BROKER_DIR = DATA_DIR / "broker"
CELERY_BROKER_URL = (
    env.url("CELERY_BROKER_URL", REDIS_URL, schemes={"redis", "rediss", "amqp", "amqps", "unix"})
    or "filesystem://localhost//"
)
# Celery has a name of its own for Redis behind a Unix socket.
CELERY_BROKER_URL = CELERY_BROKER_URL.replace("unix://", "redis+socket://")
EMBEDDED_BROKER = CELERY_BROKER_URL.startswith("filesystem:")

# --- Django --------------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_ratelimit",
    "llmchat",
    "audit",
    "accounts",
    "providers",
    "chat",
    "analytics",
]
MIDDLEWARE = [
    "llmchat.lib.request_id.request_id_middleware",
    "django.middleware.security.SecurityMiddleware",
    # Before those that may refuse: their refusals have its header too.
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "accounts.acting.acting_middleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "llmchat.urls"
ASGI_APPLICATION = "llmchat.asgi.application"
APPEND_SLASH = False
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = Path(env.text("STATIC_ROOT", str(DATA_DIR / "static"))).expanduser().resolve()
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "llmchat.lib.static.HashedWhenCollected"},
}

# --- The admin -----------------------------------------------------------------------------------------------------
LOGIN_REDIRECT_URL = "admin:index"
#: Strings that name functions are called with the request.
UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "llmchat",
    "SITE_HEADER": "llmchat",
    "SITE_SUBHEADER": "Keeps the books",
    "SITE_URL": None,
    "SITE_ICON": "llmchat.admin_site.icon",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "llmchat.admin_site.icon"}],
    "STYLES": ["llmchat.admin_site.style"],
    "SCRIPTS": ["llmchat.admin_site.script"],
    "ENVIRONMENT": "llmchat.admin_site.environment",
    "DASHBOARD_CALLBACK": "analytics.admin.page.add_to",
    "SHOW_VIEW_ON_SITE": False,
    "SIDEBAR": {"navigation": "llmchat.admin_site.navigation"},
    "COLORS": {
        "primary": {
            shade: f"oklch({lightness}% {chroma} 218)"
            for shade, lightness, chroma in (
                ("50", 97.5, 0.012),
                ("100", 94.5, 0.027),
                ("200", 89, 0.05),
                ("300", 81, 0.08),
                ("400", 72, 0.1),
                ("500", 61, 0.1),
                ("600", 51, 0.09),
                ("700", 44, 0.077),
                ("800", 37.5, 0.064),
                ("900", 32, 0.053),
                ("950", 24, 0.042),
            )
        }
    },
}

#: Groups of the side bar that are no lists of models: each app names its own.
ADMIN_NAVIGATION = ["analytics.reports.pages.navigation"]

HTTPS_ONLY = env.boolean("HTTPS_ONLY", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS_ONLY
SECURE_REDIRECT_EXEMPT = [r"^v1/health", r"^metrics$"]
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS_ONLY else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS_ONLY
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
X_FRAME_OPTIONS = "DENY"

# --- The API -------------------------------------------------------------------------------------------------------
REQUIRE_API_KEY = env.boolean("REQUIRE_API_KEY", default=True)
API_KEY_CACHE_SECONDS = env.seconds("API_KEY_CACHE_SECONDS", 10.0)
FAILED_AUTHENTICATIONS_PER_MINUTE = env.integer("FAILED_AUTHENTICATIONS_PER_MINUTE", 60, minimum=1)
MAX_BODY_BYTES = env.integer("MAX_BODY_BYTES", 10 * 1024 * 1024, minimum=1024)
BODY_READ_SECONDS = env.seconds("BODY_READ_SECONDS", 30.0)
HEADER_READ_SECONDS = env.seconds("HEADER_READ_SECONDS", 15.0)
MAX_PROMPT_CHARACTERS = env.integer("MAX_PROMPT_CHARACTERS", 1_000_000, minimum=1)
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES
METRICS_ALLOWED_ADDRESSES = env.items("METRICS_ALLOWED_ADDRESSES", ["127.0.0.1/32", "::1/128"])
METRICS_DIR = DATA_DIR / "run" / "metrics"
KEEP_ALIVE_SECONDS = env.seconds("KEEP_ALIVE_SECONDS", 15.0)
ON_DISCONNECT = env.choice("ON_DISCONNECT", "cancel", of={"cancel", "drain"})

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.APIKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.permissions.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["llmchat.lib.rendering.OrjsonRenderer"],
    "DEFAULT_PARSER_CLASSES": ["llmchat.lib.rendering.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "llmchat.lib.envelope.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_PAGINATION_CLASS": None,
    # OPTIONS is a method like any other that a path does not have.
    "DEFAULT_METADATA_CLASS": None,
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "llmchat",
    "DESCRIPTION": "One API in front of many language models; every exchange is kept, priced and searchable.",
    "LICENSE": {"name": "MIT"},
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "llmchat.lib.schema.tell_headers",
    ],
    "ENUM_NAME_OVERRIDES": {
        "InteractionStatus": "chat.models.Status",
        "ModelStatus": "providers.models.ModelHealth.Status",
        "HealthStatus": "llmchat.health.HEALTH_STATUS",
    },
}

SILENCED_SYSTEM_CHECKS = [
    # All follow from HTTPS_ONLY, of which `llmchat.W101` speaks once.
    *(f"security.{number}" for number in ("W004", "W008", "W012", "W016")),
    # Ours is Django's own Redis backend, with its connections shared between threads.
    "django_ratelimit.W001",
    # Counting in one process's memory is right for one worker; more need Redis, which `llmchat.E001` insists on.
    *([] if REDIS_URL else ["django_ratelimit.E003"]),
]
RATELIMIT_FAIL_OPEN = False

# --- What is kept --------------------------------------------------------------------------------------------------
JOURNAL_DIR = DATA_DIR / "journal"
JOURNAL_MAX_BYTES = env.integer("JOURNAL_MAX_BYTES", 1024**3, minimum=1024**2)
COMMIT_PATIENCE_SECONDS = env.seconds("COMMIT_PATIENCE_SECONDS", 1.0)
IDEMPOTENCY_HOURS = env.integer("IDEMPOTENCY_HOURS", 24, minimum=1, maximum=24 * 366)
#: What `manage.py verify_record` proves: each app names its own.
RECORD_INVARIANTS = ["chat.verification.INVARIANTS", "analytics.verification.INVARIANTS"]
#: 0: for ever.
AUDIT_RETENTION_DAYS = env.integer("AUDIT_RETENTION_DAYS", 0, minimum=0, maximum=36_500)
#: Files that people asked for in the admin. Machines share it when there are several.
EXPORTS_DIR = Path(env.text("EXPORTS_DIR", str(DATA_DIR / "exports"))).expanduser().resolve()
EXPORT_HOURS = env.integer("EXPORT_HOURS", 24, minimum=1, maximum=24 * 30)
EXPORT_MAX_BYTES = env.integer("EXPORT_MAX_BYTES", 10 * 1024**3, minimum=1024)
EXPORTS_PER_PERSON = env.integer("EXPORTS_PER_PERSON", 5, minimum=1, maximum=1000)
LOG_PROMPTS = env.boolean("LOG_PROMPTS", default=True)
LOG_RESPONSES = env.boolean("LOG_RESPONSES", default=True)
#: The newest first: it encrypts, all decrypt. Without any, texts are stored as they are.
TEXT_ENCRYPTION_KEYS = env.keys("TEXT_ENCRYPTION_KEYS")

# --- Providers -----------------------------------------------------------------------------------------------------
PROVIDER_TIMEOUTS = {
    "connect": env.seconds("PROVIDER_CONNECT_SECONDS", 5.0),
    "first_byte": env.seconds("PROVIDER_FIRST_BYTE_SECONDS", 10.0),
    "first_token": env.seconds("PROVIDER_FIRST_TOKEN_SECONDS", 10.0),
    "between_chunks": env.seconds("PROVIDER_STALL_SECONDS", 10.0),
    "total": env.seconds("REQUEST_DEADLINE_SECONDS", 120.0),
}
PROVIDER_CONNECTIONS = env.integer("PROVIDER_CONNECTIONS", 0)
PROVIDER_WHOLE_TOKENS = env.integer("PROVIDER_WHOLE_TOKENS", 128)
SITE_URL = env.text("SITE_URL", "http://localhost")


def _vendor(
    name: str, adapter: str, base_url: str | None = None, *, needs_key: bool = True, **extra: Any
) -> dict[str, Any]:
    """One row of PROVIDERS; the vendor's `NAME_API_KEY`, `NAME_BASE_URL` and `NAME_ADAPTER` are read here."""
    adapters = {family: f"providers.adapters.{family}.{adapter}" for family in ("wire", "sdk")}
    return {
        "ADAPTER": adapters[env.choice(f"{name}_ADAPTER", "wire", of=adapters)],
        "API_KEY": env.optional(f"{name}_API_KEY"),
        "BASE_URL": env.url(f"{name}_BASE_URL", base_url, schemes={"http", "https"}),
        "NEEDS_KEY": needs_key,
        "SETTING": name,
        "CONNECTIONS": PROVIDER_CONNECTIONS,
        "WHOLE_TOKENS": PROVIDER_WHOLE_TOKENS,
        **extra,
    }


_OPENAI = "openai.OpenAIAdapter"
PROVIDERS: dict[str, dict[str, Any]] = {
    "openai": _vendor("OPENAI", _OPENAI, OPTIONS={"max_tokens_field": "max_completion_tokens"}),
    "openrouter": _vendor(
        "OPENROUTER",
        _OPENAI,
        "https://openrouter.ai/api/v1",
        HEADERS={"HTTP-Referer": SITE_URL, "X-Title": "llmchat"},
        OPTIONS={"reports_cost": True, "reasoning_field": "reasoning"},
    ),
    "gemini": _vendor("GEMINI", "gemini.GeminiAdapter"),
    "anthropic": _vendor("ANTHROPIC", "anthropic.AnthropicAdapter"),
    "deepseek": _vendor(
        "DEEPSEEK", _OPENAI, "https://api.deepseek.com/v1", OPTIONS={"reasoning_field": "reasoning_content"}
    ),
    "groq": _vendor("GROQ", _OPENAI, "https://api.groq.com/openai/v1"),
    "together": _vendor("TOGETHER", _OPENAI, "https://api.together.xyz/v1"),
    "litellm": _vendor("LITELLM", _OPENAI, "http://127.0.0.1:4000/v1"),
    # On a slow machine even a short answer takes long: it comes in pieces, which show that it comes
    "ollama": _vendor("OLLAMA", _OPENAI, "http://127.0.0.1:11434/v1", needs_key=False, WHOLE_TOKENS=0),
    "local": {
        "ADAPTER": "providers.adapters.local.LocalAdapter",
        "NEEDS_KEY": False,
        # It reads about 150 tokens a second and lets requests queue: a long prompt is slow, not silent.
        "TIMEOUTS": {**PROVIDER_TIMEOUTS, "first_token": 60.0},
    },
    "simulated": {"ADAPTER": "providers.adapters.simulated.SimulatedAdapter", "NEEDS_KEY": False},
}
for _row in PROVIDERS.values():
    _row.setdefault("TIMEOUTS", PROVIDER_TIMEOUTS)
LOCAL_MODEL = "local/smollm2-135m"
#: The first of these providers that has a key gives the default model.
_DEFAULT_MODELS = {
    "gemini": "gemini/gemini-2.5-flash",
    "openai": "openai/gpt-4o-mini",
    "anthropic": "anthropic/claude-haiku-4-5",
    "openrouter": "openrouter/openai/gpt-4o-mini",
    "deepseek": "deepseek/deepseek-chat",
    "groq": "groq/llama-3.1-8b-instant",
    "together": "together/meta-llama/Llama-3.3-70B-Instruct-Turbo",
}
DEFAULT_MODEL = env.text(
    "DEFAULT_MODEL",
    next((model for slug, model in _DEFAULT_MODELS.items() if PROVIDERS[slug]["API_KEY"]), LOCAL_MODEL),
)
FALLBACK_ORDER = env.items("FALLBACK_ORDER")

# --- Mail and webhooks ---------------------------------------------------------------------------------------------
_mail = env.mail("EMAIL_URL")
#: Without an address, mail goes to the console while debugging, and nowhere else: a log is no place for reports.
EMAIL_IS_SET_UP = bool(_mail) or DEBUG
EMAIL_BACKEND = _mail.get("EMAIL_BACKEND", "django.core.mail.backends.console.EmailBackend")
EMAIL_HOST = _mail.get("EMAIL_HOST") or "localhost"
EMAIL_PORT = _mail.get("EMAIL_PORT") or (
    465 if _mail.get("EMAIL_USE_SSL") else 587 if _mail.get("EMAIL_USE_TLS") else 25
)
EMAIL_HOST_USER = _mail.get("EMAIL_HOST_USER") or ""
EMAIL_HOST_PASSWORD = _mail.get("EMAIL_HOST_PASSWORD") or ""
EMAIL_USE_TLS = bool(_mail.get("EMAIL_USE_TLS"))
EMAIL_USE_SSL = bool(_mail.get("EMAIL_USE_SSL"))
EMAIL_FILE_PATH = _mail.get("EMAIL_FILE_PATH") or None
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.text("EMAIL_FROM", "llmchat@localhost")
WEBHOOK_PRIVATE_ADDRESSES = env.boolean("WEBHOOK_PRIVATE_ADDRESSES", default=False)

# --- Background work -----------------------------------------------------------------------------------------------
HEALTH_REFRESH_SECONDS = env.integer("HEALTH_REFRESH_SECONDS", 60, minimum=5)
INDEX_WORDS_SECONDS = env.integer("INDEX_WORDS_SECONDS", 10, minimum=1, maximum=3600)
ROLL_UP_SECONDS = env.integer("ROLL_UP_SECONDS", 5, minimum=1, maximum=3600)
if EMBEDDED_BROKER:
    for _folder in ("messages", "processed", "control"):
        (BROKER_DIR / _folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {
        "data_folder_in": str(BROKER_DIR / "messages"),
        "data_folder_out": str(BROKER_DIR / "messages"),
        # Else a message being read passes through the machine's directory for temporary files.
        "store_processed": True,
        "processed_folder": str(BROKER_DIR / "processed"),
        "control_folder": str(BROKER_DIR / "control"),
    }
elif CELERY_BROKER_URL.startswith("redis"):
    # A task that nobody has finished in this time is given to another worker: Redis has no acknowledgements.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 3600, "socket_timeout": 30, "socket_connect_timeout": 5}
# On the embedded broker, remote control would leave a file for each command.
CELERY_WORKER_ENABLE_REMOTE_CONTROL = not EMBEDDED_BROKER
CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
# A task whose worker dies is done again: tasks are idempotent.
CELERY_TASK_ACKS_LATE = CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_SOFT_TIME_LIMIT = 240
CELERY_TASK_TIME_LIMIT = 300
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = TIME_ZONE
CELERY_BEAT_SCHEDULE = {
    "refresh-health": {
        "task": "chat.tasks.refresh_health",
        "schedule": HEALTH_REFRESH_SECONDS,
        # The next one is due by then: a worker that was away does not catch up on them.
        "options": {"expires": HEALTH_REFRESH_SECONDS},
    },
    "roll-up": {
        "task": "analytics.tasks.roll_up",
        "schedule": ROLL_UP_SECONDS,
        "options": {"expires": ROLL_UP_SECONDS},
    },
    "index-words": {
        "task": "chat.tasks.index_words",
        "schedule": INDEX_WORDS_SECONDS,
        "options": {"expires": INDEX_WORDS_SECONDS},
    },
    "send-reports": {
        "task": "analytics.tasks.send_reports",
        "schedule": 60,
        "options": {"expires": 60},
    },
    "price-unpriced": {"task": "analytics.tasks.price_unpriced", "schedule": 10, "options": {"expires": 10}},
    "purge-idempotency": {
        "task": "chat.tasks.purge_idempotency",
        "schedule": 3600,
        "options": {"expires": 3600},
    },
    "apply-retention": {"task": "chat.tasks.apply_retention", "schedule": 3600, "options": {"expires": 3600}},
    # Whatever was lost on the way, and what a worker that died has left.
    "work-on-exports": {"task": "chat.tasks.work_on_exports", "schedule": 60, "options": {"expires": 60}},
    "expire-exports": {"task": "chat.tasks.expire_exports", "schedule": 600, "options": {"expires": 600}},
    "make-partitions": {"task": "chat.tasks.make_partitions", "schedule": 3600, "options": {"expires": 3600}},
}

# --- Logs ----------------------------------------------------------------------------------------------------------
LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", of={"DEBUG", "INFO", "WARNING", "ERROR"})
LOG_FORMAT = env.choice("LOG_FORMAT", "auto", of={"auto", "json", "text"})
LOG_AS_JSON = LOG_FORMAT == "json" or (LOG_FORMAT == "auto" and not sys.stdout.isatty())
#: Values that no log line and no row may show.
SECRETS = {
    SECRET_KEY,
    DATABASES["default"].get("PASSWORD") or "",
    EMAIL_HOST_PASSWORD,
    *(row.get("API_KEY") or "" for row in PROVIDERS.values()),
    *env.text("TEXT_ENCRYPTION_KEYS").replace(",", " ").split(),
    *(urlsplit(address).password or "" for address in (REDIS_URL, CELERY_BROKER_URL) if address),
}
LOGGING = logs.dict_config(level=LOG_LEVEL, as_json=LOG_AS_JSON, secrets=SECRETS)

#: Every variable that is read above; `.env.example` explains each, and the system checks know the others from them.
SETTING_NAMES = frozenset(env.names)

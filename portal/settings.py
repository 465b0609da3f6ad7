"""Django's settings, made from ``portal.conf``. Nothing here reads the environment."""

from __future__ import annotations

from urllib.parse import urlsplit

from csp.constants import NONE, SELF
from django.utils.translation import gettext_lazy as _

from portal import celery as _celery  # noqa: F401  (binds shared tasks to our application in every process)
from portal.conf import PROJECT, conf
from portal.database import database_settings
from portal.logs import configure_logs

CONF = conf()
configure_logs(log_format=CONF.log_format, level=CONF.log_level)
LOGGING_CONFIG = None

SECRET_KEY = CONF.secret_key.get_secret_value()
SECRET_KEY_FALLBACKS = [key.get_secret_value() for key in CONF.secret_key_fallbacks]
DEBUG = CONF.debug
_PORTAL_HOST = urlsplit(CONF.portal_url).hostname or "localhost"
_PORT = urlsplit(CONF.portal_url).port
_SESSIONS_ORIGINS = f"{urlsplit(CONF.portal_url).scheme}://*.{CONF.sessions_domain}" + (f":{_PORT}" if _PORT else "")
ALLOWED_HOSTS = [_PORTAL_HOST, *(["localhost", "127.0.0.1", "[::1]"] if CONF.demo else [])]
ROOT_URLCONF = "portal.urls"
ASGI_APPLICATION = "portal.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "servestatic",
    "django.contrib.staticfiles",
    "channels",
    "csp",
    "django_filters",
    "django_htmx",
    "django_tables2",
    "ninja",
    "portal.accounts",
    "portal.audit",
    "launcher",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "portal.accounts.middleware.LanguageMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "portal.accounts.middleware.WebSessionMiddleware",
    "portal.accounts.middleware.PreferencesMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "portal.accounts.middleware.ProofMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [PROJECT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "portal.context.site",
            ],
        },
    }
]

DATABASES = {"default": database_settings(CONF.database)}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": CONF.valkey_url,
        "KEY_PREFIX": "footbridge",
        "OPTIONS": {"socket_timeout": 5, "socket_connect_timeout": 5},  # a page does not wait for a dead cache
    }
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        # The layer waits up to 5 s for news in one command; redis-py gives up after 5 s unless told otherwise.
        "CONFIG": {
            "hosts": [{"address": CONF.valkey_url, "socket_timeout": 30}],
            "prefix": "footbridge:channels",
        },
    }
}

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["portal.accounts.backends.PortalBackend"]
LOGIN_URL = "accounts:sign-in"
LOGIN_REDIRECT_URL = "launcher:home"
LOGOUT_REDIRECT_URL = "accounts:sign-in"

SESSION_COOKIE_AGE = int(CONF.hours_signed_in * 3600)
# Browsers share cookies among the ports of a host: two demos on one machine must not sign each other out.
_PORTAL_COOKIE = "__Host-portal" if CONF.is_https else f"portal-{CONF.port}"
SESSION_COOKIE_NAME = _PORTAL_COOKIE
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = CONF.is_https
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_NAME = f"{_PORTAL_COOKIE}-csrf"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_TRUSTED_ORIGINS = [CONF.portal_url]
CSRF_FAILURE_VIEW = "portal.errors_views.csrf_failure"
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 31_536_000 if CONF.is_https else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if CONF.trusted_proxies else None
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "manifest-src": [SELF],
        # Connect is a form whose answer leads to the session's own address: browsers check that step, too.
        "form-action": [SELF, _SESSIONS_ORIGINS],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("zh-hans", _("Simplified Chinese"))]
LANGUAGE_COOKIE_NAME = "portal-language"
LOCALE_PATHS = [PROJECT / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"

_MAIL = CONF.mail_server
EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
EMAIL_HOST = _MAIL.host if _MAIL else ""  # empty: there is no mail, and no page offers it
EMAIL_PORT = _MAIL.port if _MAIL else 0
EMAIL_HOST_USER = _MAIL.username if _MAIL else ""
EMAIL_HOST_PASSWORD = _MAIL.password.get_secret_value() if _MAIL else ""
EMAIL_USE_SSL = _MAIL.tls == "always" if _MAIL else False
EMAIL_USE_TLS = _MAIL.tls == "starttls" if _MAIL else False
EMAIL_TIMEOUT = 15
DEFAULT_FROM_EMAIL = CONF.mail_from

STATIC_URL = "static/"
STATIC_ROOT = PROJECT / "staticfiles"
STATICFILES_DIRS = [PROJECT / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    # Beside each file its compressed copy: pages come a few times sooner over a slow line.
    "staticfiles": {"BACKEND": "servestatic.storage.CompressedStaticFilesStorage"},
}
SERVESTATIC_USE_FINDERS = CONF.demo
SERVESTATIC_AUTOREFRESH = False
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

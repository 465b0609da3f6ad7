# Everything a person or a machine runs here. `make` alone lists the targets. Needs python3 with venv, and a package
# registry; all else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
# Tests wait more than they compute. Each process has a folder, a Valkey, a demo cluster and a database of its own.
TEST_PROCESSES ?= 2
SIDE_BY_SIDE := --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder
# What `make test` runs on PostgreSQL, too: locks and races, the longest flows, the log, the plans of pages and rounds.
ON_POSTGRES := $(addprefix tests/unit/test_,accounts_tokens.py audit_services.py audit_views.py audit_writers.py) \
  $(addprefix tests/integration/test_,locks.py races.py query_plans.py robustness.py crashes.py api.py sign_in.py \
  limits_migration.py names_migration.py)
CHP := var/bench/chp/node_modules/.bin/configurable-http-proxy
# Releases of Jupyter that this Python can still run; the administrator's guide names all that were tried.
OLDER := notebook-6 server-1
empty :=
space := $(empty) $(empty)
JSP := var/bench/jsp/bin/jupyter-server

# The settings that Django's plugin for mypy wants to see; nothing is signed with this.
CHECKS_ENVIRONMENT := PORTAL_DEMO=1 PORTAL_SECRET_KEY=for-checks-only-0123456789-abcdefghijkl

# python-ldap is compiled here, which takes headers that not every machine has; `make packages` installs them.
LDAP = $(if $(wildcard /usr/include/ldap.h),--extra ldap)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export UV_PYTHON_DOWNLOADS := never
export VIRTUAL_ENV :=

.DEFAULT_GOAL := help
.PHONY: help demo test postgres conformance bench jupyters chaos load endurance fuzz lint types check messages install-demo install-all packages clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## run the portal with a demonstration cluster on this machine (PORTAL_PORT=8001 for another port)
	@exec $(BIN)/python manage.py demo --end-with-parent

test: packages $(VENV)/.all ## run all tests; installs what they need, or says what is left out
	@failed=0; \
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) || failed=$$?; \
	echo "  · once more on PostgreSQL: what depends on the database most"; \
	$(BIN)/python -m tests.postgres --if-possible -m database $(SIDE_BY_SIDE) $(ON_POSTGRES) || failed=$$?; \
	exit $$failed

postgres: packages $(VENV)/.all ## every test that touches the database, on a throw-away PostgreSQL with years of data
	@FOOTBRIDGE_PLANS=full $(BIN)/python -m tests.postgres -m database $(SIDE_BY_SIDE)

conformance: $(VENV)/.all ## the proxy, item by item, over every way through it; prints the table (CONFORMANCE_MIB=96 for shorter bodies)
	@CONFORMANCE=full CONFORMANCE_PAGE="$(CONFORMANCE_PAGE)" $(BIN)/python -m pytest -q --numprocesses $(TEST_PROCESSES) \
	  --dist load --maxschedchunk 1 tests/conformance

bench: $(VENV)/.all $(CHP) $(JSP) ## the proxy beside nginx, Apache, configurable-http-proxy, jupyter-server-proxy and ssh -L (BENCH="requests ws --rounds 3"; --write: the page)
	@$(BIN)/python -m tests.bench.run $(BENCH)

$(CHP):
	@npm install --silent --no-audit --no-fund --prefix var/bench/chp configurable-http-proxy || echo "Left out: configurable-http-proxy (npm)"

$(JSP): | $(VENV)/.all
	@{ $(BIN)/uv venv -q --clear --python $(BIN)/python var/bench/jsp && \
	  $(BIN)/uv pip install -q --python var/bench/jsp/bin/python jupyter-server-proxy; } || echo "Left out: jupyter-server-proxy (PyPI)"

jupyters: $(VENV)/.all $(OLDER:%=var/jupyters/%/bin/jupyter) ## jobs and the proxy with older releases of Jupyter (FOOTBRIDGE_JUPYTERS=bin folders of others)
	@FOOTBRIDGE_JUPYTERS="$${FOOTBRIDGE_JUPYTERS:-$(subst $(space),:,$(OLDER:%=$(CURDIR)/var/jupyters/%/bin))}" \
	  $(BIN)/python -m pytest -q tests/integration/test_other_jupyters.py tests/integration/test_jobscript_jupyter.py

var/jupyters/notebook-6/bin/jupyter: | $(VENV)/.all
	@$(BIN)/uv venv -q --clear --python $(BIN)/python var/jupyters/notebook-6
	@$(BIN)/uv pip install -q --python var/jupyters/notebook-6/bin/python 'notebook==6.5.*' 'jupyter_server<2.15'

var/jupyters/server-1/bin/jupyter: | $(VENV)/.all
	@$(BIN)/uv venv -q --clear --python $(BIN)/python var/jupyters/server-1
	@$(BIN)/uv pip install -q --python var/jupyters/server-1/bin/python 'jupyterlab==3.6.*' 'jupyter_server==1.24.*'

chaos: $(VENV)/.all ## 50 launches while processes are killed and the cluster misbehaves (CHAOS_SEED=… repeats a run)
	@CHAOS_LAUNCHES=50 $(BIN)/python -m pytest -m chaos tests/chaos

load: $(VENV)/.all ## 2,000 sessions of 200 users on a simulated scheduler; prints the figures
	@LOAD_SESSIONS=2000 $(BIN)/python -m pytest -m load tests/load

endurance: $(VENV)/.all ## 5,000 idle WebSockets, and a gibibyte each way through SSH; prints what they cost in memory
	@ENDURANCE=full $(BIN)/python -m pytest -m endurance tests/endurance

fuzz: $(VENV)/.all ## 24 million byte splits of HTTP, or 20 minutes, against a strict reference (FUZZ="--seed 1 --seconds 60")
	@$(BIN)/python -m tests.fuzz.run $(FUZZ)

lint: $(VENV)/.all ## style, templates and the rules of who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/djlint --quiet --lint templates
	$(BIN)/lint-imports --config .importlinter

types: $(VENV)/.all ## strict types
	$(CHECKS_ENVIRONMENT) $(BIN)/mypy

check: lint types test ## all of these, as the continuous integration does

messages: $(VENV)/.all ## collect the texts for translation and compile the translations (needs gettext)
	$(BIN)/python manage.py demo -- makemessages --locale zh_Hans --locale en --no-obsolete --add-location file \
	  --ignore .venv --ignore var --ignore tests --ignore static
	msgattrib --empty --clear-fuzzy --clear-previous locale/en/LC_MESSAGES/django.po | msgen --output-file=locale/en/LC_MESSAGES/django.po -
	$(BIN)/python manage.py demo -- compilemessages --ignore .venv --ignore var

clean: ## remove the virtual environment and the demo's data
	rm -rf $(VENV) var

install-demo: $(VENV)/.demo
install-all: $(VENV)/.all

packages:
	@.ci/packages

# A stamp says for which lock file the packages were installed.
$(VENV)/.demo: $(VENV)/.uv uv.lock pyproject.toml
	@.ci/install $(BIN) --no-dev --extra demo
	@touch $@

$(VENV)/.all: $(VENV)/.uv uv.lock pyproject.toml
	@.ci/install $(BIN) --group dev --extra demo --extra postgres --extra pam $(LDAP)
	@touch $@ $(VENV)/.demo

$(VENV)/.uv:
	@.ci/environment $(PYTHON) $(VENV) $(UV_VERSION)
	@touch $@

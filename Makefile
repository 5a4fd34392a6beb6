# make run      a relay to try things with, by etc/demo.ini
# make test     all tests
# make check    style, types, imports, and whether etc/ and docs/ say what the code says
# make torture  vmtpd under load is killed KILLS=20 times by SEED=1, and nothing may be lost; SABOTAGE= puts a fault in
# make bench    the measurements in bench/
# make clean    remove what was made; mail in var/ stays

PYTHON ?= python3
KILLS ?= 20
SEED ?= 1
VENV = .venv
RUN = $(VENV)/bin/python
MADE = $(VENV)/made

.PHONY: run test check torture venv bench reference clean

run: $(MADE)
	@echo "Send mail to 127.0.0.1 port 2525, for any address; it arrives in the Maildir var/inbox. Ctrl-C stops."
	@echo "Try:  $(VENV)/bin/vmtpctl -c etc/demo.ini send-test you@example.org --wait"
	@$(VENV)/bin/twistd -n --pidfile= vmtpd --config etc/demo.ini

test: $(MADE)
	$(RUN) -m twisted.trial tests

check: $(MADE)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(RUN) -m twisted.trial --temp-directory=_trial_temp_check tests.test_imports tests.vmtpd.test_reference

torture: $(MADE)
	$(RUN) -m tests.faults.torture --kills $(KILLS) --seed $(SEED) $(if $(SABOTAGE),--sabotage $(SABOTAGE))

bench: $(MADE)
	@for each in bench/[a-z]*.py; do echo "== $$each"; $(RUN) $$each || exit 1; done

reference: $(MADE)
	$(RUN) -m vmtpd.reference ini >etc/vmtpd.full.ini
	$(RUN) -m vmtpd.reference markdown >docs/configuration.md

venv: $(MADE)

$(MADE): setup.cfg pyproject.toml
	@command -v $(PYTHON) >/dev/null || \
		{ echo "There is no $(PYTHON): install Python 3.11 or newer, as by: apt install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info _trial_temp* .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache

# syntax=docker/dockerfile:1
# The image of llmchat: one for web, worker, beat and migrations; the command chooses.
#   docker build --tag llmchat .                          without the local model
#   docker build --tag llmchat --build-arg INCLUDE_LOCAL_MODEL=true .   with it (about 150 MB more)
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim-bookworm AS builder
ARG INCLUDE_LOCAL_MODEL=false
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY requirements/base.txt requirements/local.txt ./
# A virtual environment is what the next stage copies: no pip, no cache, no compiler goes with it.
RUN python -m venv --without-pip /venv \
    && python -m pip --python /venv/bin/python install --require-hashes -r base.txt \
    && if [ "$INCLUDE_LOCAL_MODEL" = "true" ]; then \
         python -m pip --python /venv/bin/python install --require-hashes --no-deps --only-binary :all: -r local.txt; \
       fi

FROM python:${PYTHON_VERSION}-slim-bookworm AS runtime
ARG INCLUDE_LOCAL_MODEL=false
LABEL org.opencontainers.image.title="llmchat" \
      org.opencontainers.image.description="The LLM gateway that keeps the books" \
      org.opencontainers.image.licenses="MIT"
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DATA_DIR=/data \
    STATIC_ROOT=/app/static \
    HOST=0.0.0.0 \
    PORT=8000 \
    LOG_FORMAT=json
# What the local model's library links to, and the slim image lacks. Debian's newest is wanted, not a pinned one.
# hadolint ignore=DL3008
RUN if [ "$INCLUDE_LOCAL_MODEL" = "true" ]; then \
      apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*; \
    fi
RUN groupadd --gid 10001 llmchat \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin llmchat \
    && install --directory --owner=llmchat --group=llmchat --mode=0700 /data
COPY --from=builder /venv /venv
WORKDIR /app
COPY . .
# With a data directory that is thrown away: the secret key made in it must not become part of the image.
RUN python -m compileall -q . \
    && DATA_DIR=/tmp/collectstatic python manage.py collectstatic --no-input --verbosity 0 \
    && rm -rf /tmp/collectstatic
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/v1/health/live', timeout=4)"]
ENTRYPOINT ["python", "manage.py"]
CMD ["serve"]

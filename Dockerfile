ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PATH=/opt/venv/bin:$PATH
RUN python -m venv /opt/venv
WORKDIR /src

# pip reads it from the environment. The ordinary Linux wheel of torch brings gigabytes of CUDA packages
# that the embedded engine does not use; PyTorch's index of CPU wheels has one without.
ARG PIP_EXTRA_INDEX_URL

# The code changes daily, its dependencies seldom: installed for empty packages, they stay a layer of their own.
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
RUN mkdir service training \
    && pip install -c constraints.txt '.[embedded]'

COPY service service
COPY training training
RUN pip install -c constraints.txt --no-deps --force-reinstall . \
    && pip uninstall --yes pip

# A checkout under a strict umask must not become an image that its user cannot read.
COPY model_repository /opt/model_repository
RUN chmod -R a+rX /opt/model_repository


FROM ${BASE_IMAGE}

LABEL org.opencontainers.image.title="ExpressNet Service" \
      org.opencontainers.image.description="One photo in, the emotions of every face out." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"

# All files belong to root: the user below reads them and writes nowhere but in /tmp.
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/model_repository /opt/model_repository

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    EXPRESSNET_HOST=0.0.0.0 \
    EXPRESSNET_MODEL_REPOSITORY=/opt/model_repository

USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM

# http.client, because urllib would ask a proxy that the environment names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('EXPRESSNET_PORT', '8000')), timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]

CMD ["expressnet", "serve"]

"Hand the requirements, extras and entry points of settings.ini to setuptools; pyproject.toml has the rest."
from configparser import ConfigParser
from setuptools import setup

config = ConfigParser()
config.read('settings.ini', encoding='utf-8')

def lists(section):
    return {key: [line.strip() for line in value.splitlines() if line.strip()]
            for key, value in config.items(section)}

setup(install_requires=lists('requirements')['install'], extras_require=lists('extras'),
      entry_points=lists('entry_points'))
